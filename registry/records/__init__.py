"""What the files of a registry say: entries, series, marks, the journal; imports ``files/``,
``storages/``."""
