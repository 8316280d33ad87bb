"""Codes, findings and errors; imports nothing but ``bounds``."""
