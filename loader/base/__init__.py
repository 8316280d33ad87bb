"""The live base: loaded, described, its names on disk; imports ``weights/``."""
