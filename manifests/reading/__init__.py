"""From the bytes of a manifest to plain data with places; imports ``findings/``, ``language/``."""
