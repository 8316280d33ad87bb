"""Keys, and signatures of what a registry has; imports ``files/``, ``storages/``,
``records/``."""
