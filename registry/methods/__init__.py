"""What a method means on disk: config fields, tensor names, plan; imports ``base/``, ``files/``."""
