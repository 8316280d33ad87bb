"""Codes AD86x to AD89x: the registry of published adapters, and how adapters move."""

from __future__ import annotations

from .code import Code

OCI_ARCHIVE_INVALID = Code("AD888", "oci-archive-invalid")
OCI_ARTIFACT_INVALID = Code("AD889", "oci-artifact-invalid")
OCI_REFERENCE_INVALID = Code("AD890", "oci-reference-invalid")
DOCKER_LOGIN_UNUSABLE = Code("AD891", "docker-login-unusable")
OCI_PUSH_REFUSED = Code("AD892", "oci-push-refused")
