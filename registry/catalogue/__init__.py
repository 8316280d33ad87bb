"""The registry of published adapters; imports ``files/``, ``base/``, ``methods/``, ``store/``,
``locks/``, ``checks/``, ``sources/``."""
