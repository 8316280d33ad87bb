"""The arithmetic, one file a method; imports ``sites/`` and below."""
