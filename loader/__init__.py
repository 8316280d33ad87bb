"""Torch: base model, tensors to sites, attach, route."""
