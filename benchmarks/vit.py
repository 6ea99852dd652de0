"""A small vision transformer from its patches to its logits on the emulated chip: trained here on scikit-learn's
digits (1,297 images of 8 x 8), tested on the other 500.

Patches of 2 x 2 by a strided convolution, a class token, learned positions, blocks that normalize first, GELU; 16 + 1
tokens of 48 channels, 4 heads, 3 blocks: 86,506 parameters."""

from __future__ import annotations

import time

import numpy as np
import torch

import tvm_ergo
from benchmarks.common import parse, parser, show
from benchmarks.transformers import chip_figures
from tvm_ergo import zoo

WIDTH, HEADS, BLOCKS, PATCH, CLASSES = 48, 4, 3, 2, 10
SIDE = 8
CALIBRATION = 64


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.joined = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, rows, width = x.shape
        parts = self.qkv(self.first(x)).reshape(batch, rows, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.joined(mixed.transpose(1, 2).reshape(batch, rows, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x))))


class VisionTransformer(torch.nn.Module):
    """Images [n, 1, 8, 8] to logits [n, 10]."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS, blocks: int = BLOCKS):
        super().__init__()
        self.patches = torch.nn.Conv2d(1, width, PATCH, stride=PATCH)
        self.token = torch.nn.Parameter(torch.zeros(1, 1, width))
        self.places = torch.nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2 + 1, width))
        self.blocks = torch.nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def trained(images: np.ndarray, labels: np.ndarray, epochs: int, **sizes) -> VisionTransformer:
    """Cross-entropy, AdamW; deterministic on one thread."""
    torch.manual_seed(0)
    net, rng = VisionTransformer(**sizes), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        some = rng.integers(0, len(images), 64)
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(images[some])), torch.from_numpy(labels[some]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def top1(run, images: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float(np.mean([int(np.argmax(run(image[None]))) == label for image, label in zip(images, labels)]))


def row(epochs: int, images: int) -> dict:
    train, known, test, labels = zoo.digits()
    test, labels = test[:images], labels[:images]
    begin = time.perf_counter()
    net = trained(train, known, epochs)
    seconds = time.perf_counter() - begin
    compiled = tvm_ergo.compile(
        torch.export.export(net, (torch.zeros(1, 1, SIDE, SIDE),)), calibration=train[:CALIBRATION]
    )
    with torch.no_grad():
        before = top1(lambda x: net(torch.from_numpy(x)).numpy(), test, labels)
    after = top1(lambda x: next(iter(compiled.run(x).outputs.values())), test, labels)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "float top-1": before,
        "chip top-1": after,
        "images": len(test),
        **chip_figures(compiled, (SIDE // PATCH) ** 2 + 1),
        "training s": seconds,
    }


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=40, help="of the training")
    options.add_argument("--images", type=int, default=500, help="of the test")
    arguments = parse(options, argv)
    show("vision transformer, digits, ergo/1", [row(arguments.epochs, arguments.images)], arguments.json)


if __name__ == "__main__":
    main()
