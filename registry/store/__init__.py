"""The cache: files kept once under the name of their content; imports ``files/``."""
