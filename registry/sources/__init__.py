"""Where artefacts come from: folders, the Hub, anything fsspec opens; imports ``files/``, ``store/``."""
