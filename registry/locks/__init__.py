"""A lock: whether it is current, and what differs between two; imports ``files/``."""
