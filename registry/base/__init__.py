"""A base without torch: its modules, fingerprint and tokenizer; imports ``files/``."""
