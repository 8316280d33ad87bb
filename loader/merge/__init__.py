"""Adapters in the base's weights."""
