"""torch's convolutions by the number of dimensions of their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

CONVOLUTIONS: Mapping[int, Callable[..., torch.Tensor]] = {
    3: F.conv1d,
    4: F.conv2d,
    5: F.conv3d,
}
