"""Trains ``digits_cnn.onnx``, the network of ``make demo``: scikit-learn's bundled digits, a small residual CNN.

Run as ``python -m tvm_ergo.zoo.train_digits OUT.onnx`` with ``torch==2.13.0`` installed; takes about half a minute. The
result (1 x 1 x 8 x 8 float32 in 0..1, 10 logits) ships with the package, so that nobody needs PyTorch for the demo.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


class Residual(nn.Module):
    """An inverted bottleneck in the manner of MobileNetV2 (expand, depthwise, project, add)."""

    def __init__(self, channels: int, expand: int):
        super().__init__()
        wide = channels * expand
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.body(x)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16, 4),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Residual(32, 3),
        nn.Conv2d(32, 48, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def main(path: str) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))  # the split that zoo.digits uses
    x = torch.tensor(digits.images[order, None] / 16.0, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    train_x, train_y, test_x, test_y = x[:1297], y[:1297], x[1297:], y[1297:]
    model, epochs = network(), 60
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, epochs * 21)
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(train_x)).split(64):
            shifted = torch.roll(train_x[batch], int(torch.randint(-1, 2, ())), 3)
            loss = nn.functional.cross_entropy(model(shifted), train_y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        print(f"test accuracy {(model(test_x).argmax(1) == test_y).float().mean():.4f} on {len(test_y)} images")
    torch.onnx.export(
        model, (test_x[:1],), path, opset_version=17, input_names=["image"], output_names=["logits"], dynamo=False
    )


if __name__ == "__main__":
    main(sys.argv[1])
