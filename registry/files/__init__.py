"""Files and their content: names, headers, digests, formats; imports ``manifests/``."""
