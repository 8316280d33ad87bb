"""Files and what is in them: names, headers, digests, formats; imports ``manifests/``."""
