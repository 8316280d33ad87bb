"""The files of an adapter: which are read, and how they are read as PEFT's."""
