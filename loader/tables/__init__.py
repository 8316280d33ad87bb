"""Makes the committed tables from transformers; nothing that loads a model imports it."""
