"""Adapters in the base's weights, and out again; imports ``compose/`` and below."""
