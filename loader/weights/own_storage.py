"""Tensors that share memory with slices of one buffer, each with a storage of its own.

An adapter's tensors are slices of the bytes of its file. safetensors, accelerate and
huggingface_hub take tensors of one storage for one weight with several names: they keep one of
them, or refuse to save and to load.
"""

from __future__ import annotations

import torch


def with_own_storage(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in the same memory, in a storage that ends where the tensor does. Tensors
    without such memory (on ``meta``, quantised, traced) are returned as they are."""
    if type(tensor) is not torch.Tensor or tensor.is_meta or not tensor.is_contiguous():
        return tensor
    whole = tensor.untyped_storage()
    if not tensor.numel() or whole.nbytes() == tensor.nbytes:
        return tensor
    start = tensor.storage_offset() * tensor.element_size()
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return empty.set_(whole[start : start + tensor.nbytes], 0, tensor.shape, tensor.stride())
