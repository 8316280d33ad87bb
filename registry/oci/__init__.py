"""OCI artifacts: manifests, archives, the protocol; imports ``files/``, ``sources/``,
``storages/``, ``records/``."""
