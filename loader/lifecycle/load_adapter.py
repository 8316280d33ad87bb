"""``load_adapter``: attach one more adapter from any source."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...manifests.findings import language as language_codes
from ...manifests.findings import lock as lock_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import IntegrityError, PolicyError, UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.source import Source, SourceSyntaxError
from ...registry.access.open_registries import OpenRegistries
from ...registry.access.opening import Opening, opener_of
from ...registry.access.policy import (
    check_digest,
    check_registry_road,
    check_road,
    check_size,
    check_source,
    lists_for,
    permits,
)
from ...registry.access.published import name_in_registry, place_if_known, warnings_of
from ...registry.access.session import accepted_codes
from ...registry.access.signed_folders import check_signed
from ...registry.checks.candidate import Ask
from ...registry.checks.zeros import zeros_in_files
from ...registry.files.digests import folder_digest
from ...registry.files.mlx import WEIGHTS as MLX_WEIGHTS
from ...registry.files.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ...registry.read_facts import gather_adapter, gather_tokenizer
from ...registry.resolution import Opened
from ...registry.sources.fetch import Fetched, fetch
from ...registry.sources.folder import Folder
from ...registry.sources.in_memory import InMemoryFolder
from ...registry.sources.open import open_source
from ...registry.sources.roads import Road
from ..build.from_files import AdapterFiles, check_live, require_fit
from ..build.in_memory import files_of
from ..model.host import AdapterHost
from ..weights.dtypes import dtype_of
from .attach_files import attach_files

log = logging.getLogger("adapterdock")


def load_adapter(
    host: AdapterHost,
    source: str | os.PathLike[str] | Source | None,
    name: str,
    *,
    adapter_state_dict: Any = None,
    peft_config: Any = None,
    sha256: str | None = None,
    registry: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    trainable: bool = False,
    accept: Iterable[str] = (),
    offline: bool = False,
    hotswap: bool | str = False,
) -> None:
    """See :meth:`AdaptedModel.load_adapter`."""
    where = Where(file=f"load_adapter({name!r})")
    kept_in = dtype_of(dtype, where)
    session, file = host.session, host.file
    accepted = accepted_codes(accept) | session.accepted
    store, access = session.store, session.access
    base = file.manifest.base if file else None
    directory = file.directory if file else Path.cwd()
    replaces = host.adapters.check_name(name, hotswap, where)
    parsed = source_of(source, name, where)
    in_memory = in_memory_files(peft_config, adapter_state_dict, source, where)
    road = Road.of(file, parsed, storage_options or {}, None, where)
    opening = Opening(
        parsed,
        file,
        storage_options or {},
        policies=access.policies,
        offline=access.offline or offline,
        registries=OpenRegistries(),
        store=store,
        registry=registry,
        directory=Path.cwd(),
        vouched=True,
        where=where,
    )
    place = place_if_known(opening)
    forbidden = [
        *check_source(parsed, access.policies, Path.cwd(), where, place),
        *(
            check_road(road, access.policies, Path.cwd(), where, base=False)
            if place is None
            else check_registry_road(
                Road(place, storage_options or {}, None, road.from_user),
                name_in_registry(parsed),
                access.policies,
                where,
            )
        ),
        *check_digest(sha256, access.policies, name, where),
    ]
    if forbidden:
        raise PolicyError(*forbidden)
    if offline:
        access = replace(access, offline=True)
    opener, marked = opener_of(parsed), list[Finding]()
    if in_memory is not None:
        folder: Folder = InMemoryFolder(parsed, in_memory, where)
    elif opener is not None:
        folder = opener(opening)
        if parsed.is_registry and folder.revision is not None:
            marked = warnings_of(opening, folder.revision)
    else:
        mirrors = file.manifest.mirrors if file else {}
        lists = () if road.is_mirrored_by_user else lists_for(access.policies, base=False)
        folder = open_source(
            parsed,
            directory=Path.cwd(),
            storage_options=storage_options or {},
            mirrors=mirrors,
            offline=access.offline,
            permits=(lambda url: permits(lists, url)) if lists else None,
            where=where,
        )
    opened, notes = Opened(), list[Finding]()
    tokenizer = partial(gather_tokenizer, folder, where)
    # with a budget, digests are needed to read the files again
    hashed = sha256 is not None or any(one.require_model_signature for one in access.policies)
    files = None if hashed or host.adapters.residency.budget is not None else _local_files(folder)
    if files is None:
        facts = gather_adapter(name, folder, where)
        ask = Ask(zeros_in_files(facts, folder.read), tokenizer)
        findings, plan = check_live(host.live, facts, base, directory, where, ask)
        plan, notes = require_fit(findings, plan, accepted)  # before the weights are fetched
        wanted, opened = facts.files, Opened(folder, facts, plan, layout=host.live.layout)
    else:
        wanted = tuple(f.fact for f in files.values())
    if too_large := check_size(wanted, access.policies, name, where):
        raise PolicyError(*too_large)
    if files is None:
        files = fetch(folder, wanted, store, where=where)
    used = [one.fact for one in files.values()]
    if unsigned := check_signed(access.policies, used, lambda: folder, store.root, where):
        raise PolicyError(*unsigned)
    digest = None if sha256 is None else folder_digest(used)
    if digest != sha256:
        raise IntegrityError(
            lock_codes.DIGEST_MISMATCH.finding(
                f"The files of {name!r} do not match sha256",
                where,
                found=digest,
                expected=sha256,
            )
        )
    verified = AdapterFiles(
        name,
        files,
        store.verified,
        source=folder.source,
        base=base,
        directory=directory,
        accepted=accepted,
        dtype=kept_in,
        trainable=trainable,
        where=where,
        opened=opened,
        tokenizer=tokenizer if opened.facts is None else Ask().tokenizer,
    )
    notes += marked
    notes += attach_files(host, verified, replace=replaces)
    for note in dict.fromkeys(notes):
        log.warning("%s", note)


def _local_files(folder: Folder) -> dict[str, Fetched] | None:
    """The files of an adapter in a local folder, which need no download and, without a digest to
    compare, no hashing; ``None`` for other adapters."""
    if not folder.source.is_local or MLX_WEIGHTS in folder.files():
        return None  # only the config names the adapter's file
    found: dict[str, Fetched] = {}
    for path in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        place = folder.local(path)
        fact = folder.files().get(path)
        if place is None or fact is None:
            return None  # gather_adapter reports the missing file
        found[path] = Fetched(fact, place)
    return found


def source_of(source: str | os.PathLike[str] | Source | None, name: str, where: Where) -> Source:
    """The source that a caller passed: text as in a manifest, a local path, or none (in memory)."""
    if source is None:
        return Source.parse(f"memory://{name}")
    if isinstance(source, Source):
        return source
    try:
        text = os.fspath(source)
        if isinstance(text, bytes):
            raise TypeError("a source must be text")
        return Source.parse(str(Path(text).absolute()) if text is not source else text)
    except (SourceSyntaxError, TypeError) as error:
        raise UsageError(
            language_codes.BAD_SOURCE.finding(
                f"Invalid source {source!r}: {error}", where, found=source
            )
        ) from error


def in_memory_files(
    peft_config: Any, adapter_state_dict: Any, source: object, where: Where
) -> dict[str, bytes] | None:
    """The files of an adapter in memory, or ``None`` if there is a ``source``. Raises
    :class:`UsageError` for both and for neither."""
    in_memory = adapter_state_dict is not None or peft_config is not None
    if in_memory == (source is not None):
        raise UsageError(
            usage_codes.ONE_SOURCE.finding(
                "load_adapter needs either a source or an adapter in memory", where
            )
        )
    return files_of(peft_config, adapter_state_dict) if in_memory else None
