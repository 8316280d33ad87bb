"""Where adapters act, invisibly; imports ``routing/`` and below."""
