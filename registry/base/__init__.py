"""What is known of a base without torch: modules, fingerprint, tokenizer; imports ``files/``."""
