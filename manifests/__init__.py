"""The manifest language: schema, YAML with positions, lockfile, findings."""
