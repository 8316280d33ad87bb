"""An adapter's verified files: read, checked against the live model, built, and put onto it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import FitError, IntegrityError, SourceError, UsageError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.language.schema import Base
from ...manifests.language.source import Source
from ...registry.checks.base_record import check as check_record
from ...registry.checks.base_record import proven, without_names
from ...registry.checks.zeros import IsZero, with_zeros, zeros_in_files
from ...registry.files.digests import folder_digest, sha256_bytes
from ...registry.files.facts import DIGEST_RECORD, AdapterFacts, AdapterPlan, Header, TokenizerFacts
from ...registry.sources.fetch import Fetched
from ...registry.files.names import ADAPTER_CONFIG
from ...registry.files.adapter import read_adapter
from ...registry.files.reading import Reading
from ...registry.checks.check_adapter import check_adapter
from ...registry.files.header import read_header
from ...registry.checks.loaded_as import uncovered
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.lora_variants import invocation_of
from ...registry.methods.table import dropout_of, methods_of
from ...registry.plan import Held
from ...registry.resolve import names_of_base, recorded_base
from ...registry.store.verified import Verified
from ..adapter.adapter import Adapter, Built
from ..weights.as_read import as_read
from ..model.attach import check_free, put_adapters
from ..base.load_base import DTYPES, hub_name
from .build_adapter import build_adapter
from ..compose.recipe import made_again
from ..methods.peft.fit import settled
from ..model.residency import size_of
from ..weights.tensors import read_file

if TYPE_CHECKING:
    from ..adapted import AdaptedModel


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

    def build(self, model: AdaptedModel) -> tuple[Built, list[Finding]]:
        """The adapter, made for ``model`` but not on it, and what is worth a warning.

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
        plan, notes = self._fitting(model, reading, lambda key: not tensors.host(key).any())
        if plan.conversion is not None:
            tensors, config = tensors.converted(plan.conversion), plan.conversion.config
        built = build_adapter(
            model,
            self.name,
            plan,
            tensors,
            dtype=self.dtype,
            trainable=self.trainable,
            dropout=dropout_of(config),
            config=config,
            where=self.where,
        )
        self._note(built.adapter, tensors.header)
        return built, notes

    def put_off(self, model: AdaptedModel) -> tuple[Built, list[Finding]]:
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
        plan, notes = self._fitting(model, reading, zeros_in_files(reading, headers, self._range))
        if plan.conversion is not None:
            header, config = plan.conversion.header, plan.conversion.config
        modules, base = model.modules_of_base.by_name, model.get_base_model()
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
        self._note(adapter, header)
        return Built(adapter, {}, {}, {}), notes

    def _note(self, adapter: Adapter, header: Header) -> None:
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
            adapter.reload = lambda model: self.build(model)[0]

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
        self, model: AdaptedModel, reading: Reading, is_zero: IsZero
    ) -> tuple[AdapterPlan, list[Finding]]:
        facts = AdapterFacts(
            self.name,
            self.source,
            reading.config,
            reading.header,
            tokenizer=self.tokenizer,
            origin=reading.origin,
        )
        findings, plan = check_live(model, facts, self.base, self.directory, self.where, is_zero)
        bad = refused(findings, self.accepted)
        if bad or plan is None:
            raise FitError(*(bad or findings))
        return plan, [f for f in findings if f.severity is Severity.WARNING]


def digest_of(files: Mapping[str, Fetched]) -> str | None:
    """The folder's digest, where all of it was hashed."""
    facts = [one.fact for one in files.values()]
    return folder_digest(facts) if all(fact.sha256 for fact in facts) else None


def attach_files(
    model: AdaptedModel, files: AdapterFiles, *, replace: bool = False, lazy: bool = False
) -> list[Finding]:
    """Build an adapter (or, if ``lazy``, put that off) and put it on the model, in place of one of
    its name if it is to ``replace`` one; what is computed from that one is made again. Returns
    what is worth a warning. The model is as it was if anything raises."""
    with model.changing():
        check_free(model, files.name, replace, files.where)
        built, notes = files.put_off(model) if lazy else files.build(model)
        remade = made_again(model, [built], files.where) if replace else []
        put_adapters(model, [built, *remade], files.where)
    return notes


def check_live(
    model: AdaptedModel,
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
    if (own := hub_name(model.get_base_model())) is not None:
        names = (*names, own)
    recorded = recorded_base(facts.config, names)

    def check(known: AdapterFacts) -> tuple[list[Finding], AdapterPlan | None]:
        return check_adapter(
            known,
            None,
            where=where,
            layout=model.layout,
            declared=base.model,
            aliases=names,
            recorded=recorded,
        )

    findings, plan = check(facts)
    told = with_zeros(facts, plan, model.layout, is_zero)
    if told.zeros:
        findings, plan = check(told)
    if plan is not None:
        findings += uncovered(model.loaded_as, model.layout, facts.name, plan, where)
    modules = model.modules_of_base.by_name
    tensors = (facts if plan is None else plan.converted(facts)).header.tensors
    findings = settled(findings, plan, tensors, modules, where)
    if facts.records_base:
        metadata = facts.header.metadata
        other = check_record(metadata, model.measured, where)
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
