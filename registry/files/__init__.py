"""Files and what is in them: names, headers, digests, formats of adapters; imports ``manifests/``."""
