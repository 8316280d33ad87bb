"""Where artefacts come from: folders, the Hub, fsspec; imports ``files/``, ``store/``."""
