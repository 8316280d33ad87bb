"""The language of manifests: schema, YAML with positions, lock, findings; imports no other room."""
