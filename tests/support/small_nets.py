"""Plain modules of a few layers, each with an ``example`` batch of six rows."""

from __future__ import annotations

import torch
from torch import nn

ROWS = 6


class Steps(nn.Module):
    """Two linear layers and a bend between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(6, 10)
        self.narrow = nn.Linear(10, 4)
        self.example = torch.randn(ROWS, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(torch.tanh(self.wide(x)))


class Letters(nn.Module):
    """An embedding, a convolution over neighbours, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.letters = nn.Embedding(20, 6)
        self.window = nn.Conv1d(6, 8, 3, padding=1)
        self.rate = nn.Linear(8, 4)
        self.example = torch.arange(ROWS * 5).view(ROWS, 5) % 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rate(torch.tanh(self.window(self.letters(x).transpose(1, 2)).transpose(1, 2)))


class Pictures(nn.Module):
    """Convolutions of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.second = nn.Conv2d(6, 4, 3, groups=2)
        self.example = torch.randn(ROWS, 3, 9, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x))).mean((2, 3))


class Sequence(nn.Module):
    """A recurrent layer behind a linear one."""

    def __init__(self, rows_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(6, 10)
        self.memory = nn.GRU(10, 4, batch_first=rows_first)
        self.example = torch.randn(ROWS, 5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(x)
        if self.memory.batch_first:
            return self.memory(x)[0]
        return self.memory(x.transpose(0, 1))[0].transpose(0, 1)


class Attention(nn.Module):
    """torch's own attention, which runs its projections without calling their modules."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(6, 8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.example = torch.randn(ROWS, 5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(x)
        return self.mix(x, x, x)[0]
