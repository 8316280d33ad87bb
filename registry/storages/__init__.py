"""Where a registry lies: its layout, and storages that hold one; imports ``files/``,
``sources/``."""
