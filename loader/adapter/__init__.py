"""What an attached adapter is; imports ``base/`` and ``weights/``."""
