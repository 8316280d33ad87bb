"""Fixtures that more than one room uses."""

from .manifest_files import desk  # noqa: F401
