"""Private read-only copies of adapters, in folders that engines read."""
