"""Publish an attached adapter to a registry."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...manifests.manifest import ManifestFile, read_manifest
from ...registry.access.access import Access
from ...registry.access.session import Session, session_for
from ...registry.catalogue.publish import Published
from ...registry.catalogue.reference import parse_reference, version_of
from ...registry.catalogue.said import said_of
from ...registry.publishing import check_candidate, manifest_for, publish_candidate, signer_for
from ...registry.records.entry import Provenance
from ...registry.registries import open_registry
from ...registry.signatures.signer import Signer
from ..adapter.adapter import Adapter
from ..model.host import AdapterHost
from .save_adapter import files_of_adapter, write_files
from .save_model import base_of


def publish_adapter(
    host: AdapterHost,
    name: str,
    reference: str,
    *,
    registry: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    owner: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    metrics: Mapping[str, float] | None = None,
    provenance: Provenance | Mapping[str, Any] | None = None,
    new_name: bool = False,
    dry_run: bool = False,
    sign: str | os.PathLike[str] | Signer | None = None,
    passphrase: str | bytes | None = None,
    public_key: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Published | None:
    """See :meth:`AdaptedModel.publish`."""
    wanted = parse_reference(reference)
    version_of(wanted)
    declared = _declared(host, name)
    said = said_of(
        licence=declared.get("licence") if licence is None else licence,
        owner=declared.get("owner") if owner is None else owner,
        description=declared.get("description") if description is None else description,
        tags=declared.get("tags", ()) if tags is None else tags,
        metrics=metrics,
        provenance=provenance,
    )
    signer = signer_for(sign, passphrase, public_key)
    catalogue = open_registry(wanted, registry, host.file)
    with host.adapters.changing():
        adapter = host.adapters.known(name)
        host.state.check_unmerged(f"Cannot publish {name!r} with the base's fingerprint")
        files = files_of_adapter(host, adapter)
        named = _base(host, adapter) if base is None else None
    # private, and gone with the block: the store keeps what is uploaded
    with tempfile.TemporaryDirectory(prefix="adapterdock-publish-") as folder:
        write_files(folder, files)
        file = manifest_for(Path(folder), base, named, name)
        session = _session(host, file, pinned=base is None, offline=offline)
        candidate = check_candidate(file, wanted, said, session)
        return publish_candidate(
            catalogue, candidate, new_name=new_name, dry_run=dry_run, signer=signer
        )


def _declared(host: AdapterHost, name: str) -> dict[str, Any]:
    """What the model's manifest says of the adapter."""
    declared = host.file.manifest.adapters.get(name) if host.file is not None else None
    if declared is None:
        return {}
    about = declared.model_dump(include={"licence", "owner", "description", "tags"})
    return {key: value for key, value in about.items() if value}


def _base(host: AdapterHost, adapter: Adapter) -> ManifestFile | None:
    """A manifest that declares the model's base, or ``None`` where it was created in memory."""
    if host.deployment is not None:
        file, _ = host.deployment.base_declaration
        if file.manifest.base.model is not None:
            return file
    found, _ = base_of(host, [adapter])
    if "model" not in found:
        return None
    return read_manifest({"version": 1, "base": found, "adapters": {}})


def _session(host: AdapterHost, file: ManifestFile, *, pinned: bool, offline: bool) -> Session:
    """The session of the model's set-up, with the base at the locked revision."""
    session = session_for(file, offline=offline) if host.deployment is None else host.session
    # the adapter is on the model already: where its files lie for a moment is not a source, and
    # nobody can have signed that folder
    left_out = {"allow_sources": None, "require_model_signature": None}
    policies = tuple(policy.model_copy(update=left_out) for policy in session.access.policies)
    access = Access(
        offline=offline or session.access.offline, policies=policies, store=session.store
    )
    if pinned and host.deployment is not None:
        access = access.under(host.deployment.base_declaration[1], (None,))
    return replace(session, access=access, accepted=frozenset(), frozen=False)
