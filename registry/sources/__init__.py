"""Where artefacts come from: local folders, the Hub, and anything fsspec opens."""
