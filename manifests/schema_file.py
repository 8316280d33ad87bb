"""Where the JSON Schema of manifests is: in this package, and for editors that have a network."""

from __future__ import annotations

from pathlib import Path

SCHEMA_FILE = Path(__file__).with_name("schema.json")
SCHEMA_ADDRESS = (
    "https://raw.githubusercontent.com/adapterdock/adapterdock/main/manifests/schema.json"
)
"""The schema's ``$id``."""
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_ADDRESS}"
"""The first line of a manifest that `init` writes: editors read it as a comment of their own."""
