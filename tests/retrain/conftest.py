"""A small classification problem, a module for it, and batches in an order that only torch's generator decides."""

import pytest

torch = pytest.importorskip("torch", reason="retraining needs the extra 'retrain' (PyTorch)")


class Blobs:
    """Three noisy directions in 12 dimensions: a loader of ``(x, y)`` batches."""

    def __init__(self, count: int = 192, batch: int = 32):
        generator = torch.Generator().manual_seed(1)
        self.y = torch.arange(count) % 3
        self.x = torch.randn(count, 12, generator=generator) * 0.6 + torch.eye(12)[self.y] * 3
        self.batch = batch

    def __len__(self):
        return len(self.x) // self.batch

    def __iter__(self):
        for picked in torch.randperm(len(self.x)).split(self.batch):
            yield self.x[picked], self.y[picked]

    def accuracy(self, module) -> float:
        return float((module(self.x).argmax(1) == self.y).float().mean())


@pytest.fixture
def blobs():
    return Blobs()


@pytest.fixture
def make_module():
    def make(seed: int = 0):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(12, 24), torch.nn.ReLU(), torch.nn.Linear(24, 3))

    return make
