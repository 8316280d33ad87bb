"""Which adapters answer which row of a call; imports ``adapter/`` and below."""
