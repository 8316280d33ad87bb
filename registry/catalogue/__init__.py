"""The registry of published adapters: an append-only folder of entries, aliases and marks.

May import: ``files``, ``base``, ``methods``, ``store``, ``locks``, ``checks`` and ``sources``.
"""
