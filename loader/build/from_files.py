"""An adapter's verified files: read, checked against the live model, and built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import FitError, UsageError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.language.schema import Base
from ...manifests.language.source import Source
from ...registry.checks.base_record import check as check_record
from ...registry.checks.base_record import proven, without_names
from ...registry.checks.candidate import Ask
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.loaded_as import uncovered
from ...registry.checks.zeros import IsZero, zeros_in_files
from ...registry.files.adapter import read_adapter
from ...registry.files.digests import folder_digest
from ...registry.files.facts import (
    DIGEST_RECORD,
    AdapterFacts,
    AdapterPlan,
    Header,
    Layout,
    TokenizerFacts,
)
from ...registry.files.header import read_header
from ...registry.files.names import ADAPTER_CONFIG
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.idle import uncalled
from ...registry.methods.lora_variants import invocation_of
from ...registry.methods.table import methods_of
from ...registry.plan import Held
from ...registry.recorded_base import names_of_base, recorded_base
from ...registry.resolution import Opened
from ...registry.sources.fetch import Fetched
from ...registry.store.verified import Verified
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import size_of
from ..base.live_base import LiveBase
from ..methods.peft.fit import settled
from ..weights.as_read import as_read
from ..weights.buffer import digest_check, explained
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
    accepted: Collection[str] = ()
    dtype: torch.dtype | None = None
    trainable: bool = False
    where: Where = Where()  # noqa: RUF009 - frozen
    opened: Opened = Opened()  # noqa: RUF009 - frozen
    """What was read of these files, and found to fit, before they were fetched."""
    tokenizer: Callable[[], TokenizerFacts | None] = field(default=lambda: None)
    """Reads the tokenizer beside the adapter, which is checked too."""

    def build(self, live: LiveBase) -> tuple[Built, list[Finding]]:
        """Build the adapter for this base, not on a model yet; and the warnings about it.

        The bytes that are attached are the verified ones: they are read once, and hashed unless
        ``verified`` knows that the file is unchanged. Raises :class:`FitError` for a misfit and for
        a check that could not run and is not accepted, and all that reading and building raise.
        """
        files = {
            path: read_file(
                file.path,
                file.fact.sha256,
                self.where,
                verified=self.verified,
                wait=False,
                known=self._known(path),
            )
            for path, file in self._weights.items()
        }
        facts = self._facts({path: tensors.header for path, tensors in files.items()})
        tensors, config = as_read(facts, files, self.where), facts.config
        plan, notes = self._fitting(live, facts, lambda key: not tensors.host(key).any())
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
        facts = self._facts(
            {
                path: read_header(
                    functools.partial(self._range, path),
                    file.fact.size,
                    self.where,
                    file.path.name,
                    self._known(path),
                )
                for path, file in self._weights.items()
            }
        )
        config, header = facts.config, facts.header
        plan, notes = self._fitting(live, facts, zeros_in_files(facts, self._range))
        if plan.conversion is not None:
            header, config = plan.conversion.header, plan.conversion.config
        adapter = Adapter(
            name=self.name,
            methods=methods_of(plan),
            rank=plan.rank,
            sites=frozenset((*plan.modules, *plan.biases)),
            replaced=frozenset((*plan.saved, *plan.tuned)),
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
            again = replace(self, opened=Opened(), tokenizer=lambda: None)
            adapter.reload = lambda live: again.build(live)[0]

    @property
    def _weights(self) -> Mapping[str, Fetched]:
        return {path: file for path, file in self.files.items() if path.endswith(".safetensors")}

    def _known(self, path: str) -> Header | None:
        return None if self.opened.facts is None else self.opened.facts.headers.get(path)

    def _facts(self, headers: Mapping[str, Header]) -> AdapterFacts:
        """What config and headers say: what was read of them before, where they are still the
        same."""
        config, facts = self.files[ADAPTER_CONFIG], self.opened.facts
        if (
            facts is not None
            and facts.headers.keys() == headers.keys()
            and all(facts.headers[path] is header for path, header in headers.items())
            and any((f.path, f.sha256) == (ADAPTER_CONFIG, config.fact.sha256) for f in facts.files)
        ):
            return facts
        parsed = parse_adapter_config(_read(config, self.where), self.where)
        reading = read_adapter(parsed, headers, self.where)
        return AdapterFacts(
            self.name,
            self.source,
            reading.config,
            reading.header,
            origin=reading.origin,
            headers=headers,
            parts=reading.parts,
        )

    def _range(self, path: str, start: int, length: int) -> bytes:
        file = self.files[path].path
        with explained(file, self.where), file.open("rb") as stream:
            stream.seek(start)
            return stream.read(length)

    def _fitting(
        self, live: LiveBase, facts: AdapterFacts, is_zero: IsZero
    ) -> tuple[AdapterPlan, list[Finding]]:
        known = self.opened if facts is self.opened.facts else Opened()
        findings, plan = check_live(
            live, facts, self.base, self.directory, self.where, Ask(is_zero, self.tokenizer), known
        )
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
    ask: Ask,
    known: Opened = Opened(),  # noqa: B008 - frozen
) -> tuple[list[Finding], AdapterPlan | None]:
    """Check the fit against the live model. ``base`` is the one that the manifest in ``directory``
    declares; the Hub id under which transformers loaded the model counts as its name too. ``ask``
    answers what no header tells. Shapes that ``known`` proves for the same modules are not proved
    again."""
    layout = live.layout
    if _is_proved(known, layout):
        findings, plan = list[Finding](), known.plan
    else:
        base = base or Base()
        names = names_of_base(base, directory or Path.cwd(), facts.config)
        if (own := live.hub_name) is not None:
            names = (*names, own)
        findings, plan = check_adapter(
            facts,
            None,
            where=where,
            layout=layout,
            declared=base.model,
            aliases=names,
            recorded=recorded_base(facts.config, names),
            ask=ask,
        )
    if plan is not None:
        findings += uncovered(live.loaded_as, layout, facts.name, plan, where)
    modules = live.known_modules.by_name  # the layout is of these
    tensors = (facts if plan is None else plan.converted(facts)).header.tensors
    findings = settled(findings, plan, tensors, modules, where)
    if facts.records_base:
        metadata = facts.header.metadata
        other = check_record(metadata, live.measured, where)
        if proven(metadata, other):
            findings = without_names(findings)
        findings = [*other, *findings]
    return findings, plan


def _is_proved(known: Opened, layout: Layout) -> bool:
    """Whether ``known`` proves the fit for this layout. Methods that only PEFT knows, and factors
    whose values decide, are checked on the live model."""
    if known.plan is None or known.layout is None or known.plan.peft is not None:
        return False
    return known.layout.is_of_model(layout) and not any(uncalled(known.plan, layout))


def _read(file: Fetched, where: Where) -> bytes:
    """The config's bytes. Raises :class:`IntegrityError` if they are not the verified ones."""
    with explained(file.path, where):
        data = file.path.read_bytes()
    digest_check(data, memoryview(b""), file.fact.sha256, where, file.path.name)()
    return data
