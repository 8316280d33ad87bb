"""The adapters that a manifest says, followed, verified and switched; no engine needed."""
