"""Where artefacts come from: folders, the Hub, what fsspec opens; imports ``files/``, ``store/``."""
