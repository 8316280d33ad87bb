"""An adapter's verified files: read, checked against the live model, built, and put onto it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import FitError, IntegrityError, SourceError, UsageError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.language.schema import Base
from ...manifests.language.source import Source
from ...registry.checks.base_record import check as check_record
from ...registry.checks.base_record import proven, without_names
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.loaded_as import uncovered
from ...registry.checks.zeros import IsZero, with_zeros, zeros_in_files
from ...registry.files.adapter import read_adapter
from ...registry.files.digests import folder_digest, sha256_bytes
from ...registry.files.facts import DIGEST_RECORD, AdapterFacts, AdapterPlan, Header, TokenizerFacts
from ...registry.files.header import read_header
from ...registry.files.names import ADAPTER_CONFIG
from ...registry.files.reading import Reading
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.lora_variants import invocation_of
from ...registry.methods.table import dropout_of, methods_of
from ...registry.plan import Held
from ...registry.resolve import names_of_base, recorded_base
from ...registry.sources.fetch import Fetched
from ...registry.store.verified import Verified
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import size_of
from ..base.live_base import LiveBase
from ..methods.peft.fit import settled
from ..weights.as_read import as_read
from ..weights.dtypes import DTYPES
from ..weights.tensors import read_file
from .build_adapter import build_adapter


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter, by name, and how it is to be attached.

    ``verified`` knows which of them were hashed as they are now. ``base`` is what the manifest in
    ``directory`` declares, ``accepted`` the codes of unchecked findings that a person accepted,
    ``dtype`` what the factors are kept in (else the dtype of the module they sit on).
    """

    name: str
    files: Mapping[str, Fetched]
    verified: Verified
    source: Source | None = None
    base: Base | None = None
    directory: Path | None = None
    tokenizer: TokenizerFacts | None = None
    accepted: Collection[str] = ()
    dtype: torch.dtype | None = None
    trainable: bool = False
    where: Where = Where()  # noqa: RUF009 - frozen

    def build(self, live: LiveBase) -> tuple[Built, list[Finding]]:
        """The adapter, made for this base but on no model yet, and what is worth a warning.

        The bytes that are attached are those that were verified: they are read once, and hashed
        unless ``verified`` knows the file as it is now. Raises :class:`FitError` for a misfit and
        for what could not be checked and is not accepted, or what reading and building raise.
        """
        files = {
            path: read_file(
                file.path, file.fact.sha256, self.where, verified=self.verified, wait=False
            )
            for path, file in self._weights.items()
        }
        reading = self._reading({path: one.header for path, one in files.items()})
        tensors, config = as_read(reading, files, self.where), reading.config
        plan, notes = self._fitting(live, reading, lambda key: not tensors.host(key).any())
        if plan.conversion is not None:
            tensors, config = tensors.converted(plan.conversion), plan.conversion.config
        built = build_adapter(
            live,
            self.name,
            plan,
            tensors,
            dtype=self.dtype,
            trainable=self.trainable,
            dropout=dropout_of(config),
            config=config,
            where=self.where,
        )
        self._note(built.adapter, tensors.header, live)
        return built, notes

    def put_off(self, live: LiveBase) -> tuple[Built, list[Finding]]:
        """The same, but only its config and header are read and its fit is checked: its weights
        are read when it is first used."""
        if self.trainable or digest_of(self.files) is None:
            raise UsageError(
                usage_codes.LAZY_TRAINABLE.finding(
                    f"{self.name!r} cannot be read on first use", self.where
                )
            )
        headers = {path: _read_header(file, self.where) for path, file in self._weights.items()}
        reading = self._reading(headers)
        config, header = reading.config, reading.header
        plan, notes = self._fitting(live, reading, zeros_in_files(reading, headers, self._range))
        if plan.conversion is not None:
            header, config = plan.conversion.header, plan.conversion.config
        modules, base = live.modules.by_name, live.module
        adapter = Adapter(
            name=self.name,
            methods=methods_of(plan),
            rank=plan.rank,
            sites=frozenset((*plan.modules, *plan.biases)),
            whole=frozenset((*plan.saved, *plan.tuned)),
            invocation=invocation_of(plan),
            nbytes=size_of(plan, header, modules, base, self.dtype),
            config=config,
            loaded=False,
        )
        self._note(adapter, header, live)
        return Built(adapter, {}, {}, {}), notes

    def _note(self, adapter: Adapter, header: Header, live: LiveBase) -> None:
        """What the adapter keeps of where it came from."""
        adapter.held = Held(
            digest_of(self.files),
            next((text for text, kind in DTYPES.items() if kind is self.dtype), None),
            self.trainable,
            None if self.source is None else str(self.source),
            "+".join(adapter.methods),
            adapter.rank,
        )
        adapter.digest = header.metadata.get(DIGEST_RECORD, adapter.held.digest)
        if adapter.held.digest is not None and not self.trainable:
            adapter.reload = lambda: self.build(live)[0]

    @property
    def _weights(self) -> Mapping[str, Fetched]:
        return {path: file for path, file in self.files.items() if path.endswith(".safetensors")}

    def _reading(self, headers: Mapping[str, Header]) -> Reading:
        raw = _read(self.files[ADAPTER_CONFIG], self.where)
        return read_adapter(parse_adapter_config(raw, self.where), headers, self.where)

    def _range(self, path: str, start: int, length: int) -> bytes:
        try:
            with self.files[path].path.open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except OSError as error:
            raise _unreadable(self.files[path], error, self.where) from error

    def _fitting(
        self, live: LiveBase, reading: Reading, is_zero: IsZero
    ) -> tuple[AdapterPlan, list[Finding]]:
        facts = AdapterFacts(
            self.name,
            self.source,
            reading.config,
            reading.header,
            tokenizer=self.tokenizer,
            origin=reading.origin,
        )
        findings, plan = check_live(live, facts, self.base, self.directory, self.where, is_zero)
        bad = refused(findings, self.accepted)
        if bad or plan is None:
            raise FitError(*(bad or findings))
        return plan, [f for f in findings if f.severity is Severity.WARNING]


def digest_of(files: Mapping[str, Fetched]) -> str | None:
    """The folder's digest, where all of it was hashed."""
    facts = [one.fact for one in files.values()]
    return folder_digest(facts) if all(fact.sha256 for fact in facts) else None


def check_live(
    live: LiveBase,
    facts: AdapterFacts,
    base: Base | None,
    directory: Path | None,
    where: Where,
    is_zero: IsZero,
) -> tuple[list[Finding], AdapterPlan | None]:
    """Fit against the live model. ``base`` is what the manifest in ``directory`` declares; the
    Hub id under which transformers loaded the model counts as a name of it too. ``is_zero`` is
    asked about factors at modules that are never called."""
    base = base or Base()
    names = names_of_base(base, directory or Path.cwd(), facts.config)
    if (own := live.hub_name) is not None:
        names = (*names, own)
    recorded = recorded_base(facts.config, names)

    def check(known: AdapterFacts) -> tuple[list[Finding], AdapterPlan | None]:
        return check_adapter(
            known,
            None,
            where=where,
            layout=live.layout,
            declared=base.model,
            aliases=names,
            recorded=recorded,
        )

    findings, plan = check(facts)
    told = with_zeros(facts, plan, live.layout, is_zero)
    if told.zeros:
        findings, plan = check(told)
    if plan is not None:
        findings += uncovered(live.loaded_as, live.layout, facts.name, plan, where)
    modules = live.modules.by_name
    tensors = (facts if plan is None else plan.converted(facts)).header.tensors
    findings = settled(findings, plan, tensors, modules, where)
    if facts.records_base:
        metadata = facts.header.metadata
        other = check_record(metadata, live.measured, where)
        if proven(metadata, other):
            findings = without_names(findings)
        findings = [*other, *findings]
    return findings, plan


def _read(file: Fetched, where: Where) -> bytes:
    """The config's bytes, which must still be those that were verified."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise _unreadable(file, error, where) from error
    found = sha256_bytes(data)
    if file.fact.sha256 not in (None, found):
        raise IntegrityError(
            loader_codes.TENSORS_CHANGED.finding(
                f"{file.path.name} is not the file that was pinned",
                where,
                found=found,
                expected=file.fact.sha256,
            )
        )
    return data


def _read_header(file: Fetched, where: Where) -> Header:
    """The header of a safetensors file on this machine."""
    try:
        with file.path.open("rb") as stream:

            def read(start: int, length: int) -> bytes:
                stream.seek(start)
                return stream.read(length)

            return read_header(read, file.fact.size, where=where, file=file.path.name)
    except OSError as error:
        raise _unreadable(file, error, where) from error


def _unreadable(file: Fetched, error: OSError, where: Where) -> SourceError:
    said = f"{file.path.name} could not be read: {error.strerror}"
    return SourceError(loader_codes.TENSORS_UNREADABLE.finding(said, where, found=file.path))
