"""The registry of published adapters: what is done to one; imports the sub-rooms from ``files/``
to ``oci/``."""
