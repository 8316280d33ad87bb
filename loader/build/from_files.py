"""An adapter's verified files: read, checked against the live model, and built."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import FitError, UsageError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.language.schema import Base
from ...manifests.language.source import Source
from ...registry.checks.base_record import check as check_record
from ...registry.checks.base_record import proven, without_names
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.loaded_as import uncovered
from ...registry.checks.zeros import IsZero, with_zeros, zeros_in_files
from ...registry.files.adapter import read_adapter
from ...registry.files.digests import folder_digest
from ...registry.files.facts import DIGEST_RECORD, AdapterFacts, AdapterPlan, Header, TokenizerFacts
from ...registry.files.header import read_header
from ...registry.files.names import ADAPTER_CONFIG
from ...registry.files.reading import Reading
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.lora_variants import invocation_of
from ...registry.methods.table import methods_of
from ...registry.plan import Held
from ...registry.resolve import names_of_base, recorded_base
from ...registry.sources.fetch import Fetched
from ...registry.store.verified import Verified
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import size_of
from ..base.live_base import LiveBase
from ..methods.peft.fit import settled
from ..weights.as_read import as_read
from ..weights.buffer import DigestCheck, explained
from ..weights.dtypes import DTYPES
from ..weights.tensors import read_file
from .build_adapter import build_adapter


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter, by name, and how to attach it.

    ``verified`` knows which of them were hashed and are unchanged. ``base`` is the one that the
    manifest in ``directory`` declares, ``accepted`` the codes of unchecked findings that a person
    accepted, ``dtype`` that of the factors (else the dtype of the module they sit on).
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
        """Build the adapter for this base, not on a model yet; and the warnings about it.

        The bytes that are attached are the verified ones: they are read once, and hashed unless
        ``verified`` knows that the file is unchanged. Raises :class:`FitError` for a misfit and for
        a check that could not run and is not accepted, and all that reading and building raise.
        """
        files = {
            path: read_file(
                file.path, file.fact.sha256, self.where, verified=self.verified, wait=False
            )
            for path, file in self._weights.items()
        }
        reading = self._reading({path: tensors.header for path, tensors in files.items()})
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
            config=config,
            where=self.where,
        )
        self._note(built.adapter, tensors.header, live)
        return built, notes

    def put_off(self, live: LiveBase) -> tuple[Built, list[Finding]]:
        """The same without the weights, which are read on first use: only its config and header are
        read, and its fit is checked."""
        if self.trainable or digest_of(self.files) is None:
            raise UsageError(
                usage_codes.LAZY_TRAINABLE.finding(
                    f"Cannot load {self.name!r} on first use", self.where
                )
            )
        headers = {
            path: read_header(
                functools.partial(self._range, path), file.fact.size, self.where, file.path.name
            )
            for path, file in self._weights.items()
        }
        reading = self._reading(headers)
        config, header = reading.config, reading.header
        plan, notes = self._fitting(live, reading, zeros_in_files(reading, headers, self._range))
        if plan.conversion is not None:
            header, config = plan.conversion.header, plan.conversion.config
        adapter = Adapter(
            name=self.name,
            methods=methods_of(plan),
            rank=plan.rank,
            sites=frozenset((*plan.modules, *plan.biases)),
            whole=frozenset((*plan.saved, *plan.tuned)),
            invocation=invocation_of(plan),
            nbytes=size_of(plan, header, live.modules.by_name, live.module, self.dtype),
            config=config,
            loaded=False,
        )
        self._note(adapter, header, live)
        return Built(adapter, {}, {}, {}), notes

    def _note(self, adapter: Adapter, header: Header, live: LiveBase) -> None:
        """Record on the adapter where it came from, and how to load it again."""
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
        file = self.files[path].path
        with explained(file, self.where), file.open("rb") as stream:
            stream.seek(start)
            return stream.read(length)

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
        return require_fit(findings, plan, self.accepted)


def digest_of(files: Mapping[str, Fetched]) -> str | None:
    """The folder's digest; ``None`` if a file was not hashed."""
    facts = [file.fact for file in files.values()]
    return folder_digest(facts) if all(fact.sha256 for fact in facts) else None


def require_fit(
    findings: list[Finding], plan: AdapterPlan | None, accepted: Collection[str]
) -> tuple[AdapterPlan, list[Finding]]:
    """The plan, and the warnings among the findings. Raises :class:`FitError` for a misfit and for
    a check that could not run and is not ``accepted``."""
    errors = refused(findings, accepted)
    if errors or plan is None:
        raise FitError(*(errors or findings))
    return plan, [f for f in findings if f.severity is Severity.WARNING]


def check_live(
    live: LiveBase,
    facts: AdapterFacts,
    base: Base | None,
    directory: Path | None,
    where: Where,
    is_zero: IsZero,
) -> tuple[list[Finding], AdapterPlan | None]:
    """Check the fit against the live model. ``base`` is the one that the manifest in ``directory``
    declares; the Hub id under which transformers loaded the model counts as its name too.
    ``is_zero`` is asked about factors at modules that are never called."""
    base, layout = base or Base(), live.layout
    names = names_of_base(base, directory or Path.cwd(), facts.config)
    if (own := live.hub_name) is not None:
        names = (*names, own)
    recorded = recorded_base(facts.config, names)

    def check(known: AdapterFacts) -> tuple[list[Finding], AdapterPlan | None]:
        return check_adapter(
            known,
            None,
            where=where,
            layout=layout,
            declared=base.model,
            aliases=names,
            recorded=recorded,
        )

    findings, plan = check(facts)
    with_values = with_zeros(facts, plan, layout, is_zero)
    if with_values.zeros:
        findings, plan = check(with_values)
    if plan is not None:
        findings += uncovered(live.loaded_as, layout, facts.name, plan, where)
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
    """The config's bytes. Raises :class:`IntegrityError` if they are not the verified ones."""
    with explained(file.path, where):
        data = file.path.read_bytes()
    if file.fact.sha256 is not None:
        DigestCheck((data, memoryview(b"")), file.fact.sha256, where, file.path.name).verify()
    return data
