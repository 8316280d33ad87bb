"""Torch-free: sources, headers, fingerprints, fit, lock, store."""
