"""Adapters written for others: PEFT folders, GGUF, MLX."""
