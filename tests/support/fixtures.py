"""Fixtures that more than one room uses."""

from __future__ import annotations

from .azure_server import azure, azure_server  # noqa: F401
from .desks import at_desk  # noqa: F401
from .docker_registry import docker_registry  # noqa: F401
from .hub_server import hub  # noqa: F401
from .manifest_files import desk  # noqa: F401
from .oci_server import oci  # noqa: F401
from .places import place  # noqa: F401
from .project import project  # noqa: F401
from .real_models import minilm, rxnfp_berts, smollm2, t5_bias_lora  # noqa: F401
from .replicas import replica  # noqa: F401
from .s3_server import s3, s3_server  # noqa: F401
from .shelf import shelf  # noqa: F401
from .web import web  # noqa: F401
