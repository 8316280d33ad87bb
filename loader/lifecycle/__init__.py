"""A running model: deploy a manifest, add, change, watch, save; imports all above it."""
