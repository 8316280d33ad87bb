"""Dropping values of a tensor: the smallest (TIES, https://arxiv.org/abs/2306.01708), or at random
(DARE, https://arxiv.org/abs/2311.03099).

The random masks depend only on (seed, adapter digest, tensor name): not on the order of the
adapters, the thread, or torch's global generator. PEFT draws its masks from that generator, so the
two agree only if PEFT gets the same mask.
"""

from __future__ import annotations

import hashlib
import json

import torch


def keep_largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """The ``int(density * numel)`` values of largest magnitude, zero elsewhere."""
    if density >= 1:
        return tensor
    flat = tensor.reshape(-1)
    kept = torch.topk(flat.abs(), k=int(density * flat.numel()), largest=True).indices
    mask = torch.zeros_like(flat)
    mask[kept] = 1
    return (flat * mask).reshape(tensor.shape)


def keep_masked(tensor: torch.Tensor, mask: torch.Tensor, density: float) -> torch.Tensor:
    """The values where ``mask`` is true, divided by ``density`` so that the mean stays; zero
    elsewhere."""
    return tensor * mask.reshape(tensor.shape).to(tensor.dtype) / density


def random_mask(count: int, density: float, seed: int, digest: str, name: str) -> torch.Tensor:
    """``count`` independent draws that are true with probability ``density`` (bool, flat).

    ``digest`` is the adapter's, ``name`` the tensor's (``model.layers.0.mlp.up_proj.lora_A.weight``
    for a factor, ``....weight`` for a delta). torch's CPU generator (mt19937) and its float32
    uniform draws do not depend on the number of threads.
    """
    generator = torch.Generator(device="cpu").manual_seed(mask_key(seed, digest, name))
    return torch.rand(count, generator=generator, dtype=torch.float32) < density


def mask_key(seed: int, digest: str, name: str) -> int:
    """The generator's own seed: the first 63 bits of SHA-256 over the three, as JSON."""
    text = json.dumps(["adapterdock mask v1", seed, digest, name], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
