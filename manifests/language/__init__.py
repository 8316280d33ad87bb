"""The manifest as frozen models, and the grammar of its values; imports ``findings/``."""
