"""Which base this is: measured from config, headers and a few values, and compared.

A base is measured at several levels, without torch from its files by
:func:`fingerprint_of`, and from a live model by ``loader.base.live_fingerprint``; both give
the same digests. Every digest is written ``v1:sha256:HEX`` and never changes for the same base:

- ``structure`` and ``heads``: SHA-256 of ``adapterdock structure v1\\n`` and, for each tensor of
  the backbone (of the heads) in the order of its name, ``<name> [<d0>,<d1>...]\\n``, names and
  parts as in ``registry.base.backbone``;
- ``config``: ``registry.base.base_config``;
- ``weights`` and ``head_weights``: ``registry.base.samples``, over the backbone's and
  the heads' floating-point tensors;
- ``tokenizer`` and ``chat_template``: ``registry.base.tokenizer``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...manifests.findings import fingerprint as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import FingerprintError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Fingerprint, WeightDigests
from ..files.digests import versioned_digest
from ..files.facts import BaseFacts
from ..files.pool import each
from ..files.precision import WIDTHS, Precision
from ..files.wording import some
from .backbone import Shape, Split, split
from .base_config import canonical, family_of, hidden_size, ties_embeddings
from .samples import Sample, Samples, agreement, chosen, run, weight_digests
from .tokenizer import chat_template_digest, tokenizer_digest

ReadFile = Callable[[str, int, int], bytes]
"""``read(file, start, length)``: that range of one of the base's files, exactly."""

_SHOWN = 5
_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Measured:
    """The measurements of a base.

    ``configs`` are further digests under which the same config may have been declared (fields
    written out or left to the class). ``doubts`` says, by level (``structure``, ``config``,
    ``weights``, ``tokenizer``), why the level could not be measured or why a difference may not
    mean another base. ``names`` are the backbone's tensors.
    """

    fingerprint: Fingerprint
    samples: Samples | None = None
    configs: frozenset[str] = frozenset()
    doubts: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def fingerprint_of(
    base: BaseFacts,
    read: ReadFile | None = None,
    tokenizer_files: Mapping[str, bytes] | None = None,
    *,
    workers: int = 1,
) -> Measured:
    """Measure a base by its files: at most 64 bytes of each tensor are read.

    Without ``read`` there are no weights' digests and no samples; without ``tokenizer_files``
    (by name, see ``TOKENIZER_FILES``) no tokenizer's. With ``workers`` above 1, ``read`` is called
    from that many threads, which helps over a network. Raises :class:`FingerprintError` for an
    invalid tokenizer file; what ``read`` raises passes through.
    """
    shapes = {name: info.shape for name, info in base.tensors.items()}
    parts = split(shapes, tied=ties_embeddings(base.config))
    samples = None if read is None else _sampled(base, parts, read, workers)
    config = canonical(base.config)
    files = tokenizer_files or {}
    try:
        tokenizer, template = tokenizer_digest(files), chat_template_digest(files)
    except ValueError as error:
        raise FingerprintError(codes.TOKENIZER_FILE.finding(str(error))) from error
    fingerprint = Fingerprint(
        architecture=base.architecture,
        hidden_size=hidden_size(base.config),
        structure=structure_digest(parts.backbone, shapes),
        heads=structure_digest(parts.heads, shapes),
        config=config.digest if config.fields.get("model_type") else None,
        weights=None if samples is None else weight_digests(samples.backbone),
        head_weights=None if samples is None else weight_digests(samples.heads),
        tokenizer=tokenizer,
        chat_template=template,
    )
    doubts: dict[str, str] = {} if config.doubt is None else {"config": config.doubt}
    if read is None:
        doubts["weights"] = "its weights were not read"
    return Measured(fingerprint, samples, doubts=doubts, names=frozenset(parts.backbone))


def structure_digest(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> str | None:
    """The digest of ``{canonical name: name on disk}``; ``None`` without tensors."""
    if not names:
        return None
    lines = [
        f"{name} {json.dumps(list(shapes[disk]), separators=(',', ':'))}\n"
        for name, disk in sorted(names.items())
    ]
    return versioned_digest("structure", "".join(lines).encode())


def sampled_names(parts: Split, dtypes: Mapping[str, str]) -> dict[str, str]:
    """The tensors that are sampled, canonical name to name on disk: chosen ones with floating-point
    values. ``dtypes`` are safetensors' names of dtypes, by name on disk."""
    every = parts.all
    return {name: every[name] for name in chosen(n for n in every if dtypes[every[n]] in WIDTHS)}


def tables(parts: Split, samples: Mapping[str, Sample]) -> Samples:
    """Samples by canonical name, as a table of backbone and heads."""
    return Samples(
        {name: sample for name, sample in samples.items() if name in parts.backbone},
        {name: sample for name, sample in samples.items() if name in parts.heads},
    )


def _sampled(base: BaseFacts, parts: Split, read: ReadFile, workers: int) -> Samples:
    names = sampled_names(parts, {name: info.dtype for name, info in base.tensors.items()})
    file_of = {tensor: file for file, header in base.headers.items() for tensor in header.tensors}

    def take(disk: str) -> Sample:
        info = base.tensors[disk]
        file = file_of[disk]
        first, count = run(info.shape)
        width = WIDTHS[info.dtype]
        start = base.headers[file].data_start + info.start + first * width
        return Sample(info.dtype, read(file, start, count * width) if count else b"")

    samples = each(take, list(names.values()), workers)
    return tables(parts, dict(zip(names, samples, strict=True)))


def compare(
    declared: Fingerprint,
    found: Measured,
    where: Where = Where(),  # noqa: B008 - frozen
    *,
    samples: Samples | None = None,
) -> list[Finding]:
    """How the base ``found`` differs from ``declared``, level by level; empty if it is the same.

    A level that is not declared is not compared; one that is declared and could not be measured
    is an *unchecked* finding. ``samples`` is the declared sample table (the lock keeps it): with
    it each tensor is compared by itself, a mismatch names its tensors, and a base of which only
    some tensors can be read is compared by these.
    """
    check = _Comparison(declared, found, where, samples)
    return [
        *check.architecture(),
        *check.level(
            "hidden_size",
            codes.HIDDEN_SIZE,
            codes.ARCHITECTURE_UNCHECKED,
            f"The base's hidden size is {found.fingerprint.hidden_size}",
        ),
        *check.structure(),
        *check.config(),
        *check.weights(),
        *check.tokenizer(),
    ]


@dataclass(frozen=True)
class _Comparison:
    declared: Fingerprint
    found: Measured
    where: Where
    samples: Samples | None

    def at(self, level: str) -> Where:
        return replace(self.where, path=(*self.where.path, level))

    def level(
        self,
        level: str,
        error: Code,
        unchecked: Code,
        message: str,
        *,
        doubt: str | None = None,
        absent: str | None = None,
    ) -> Iterator[Finding]:
        """A finding where the level is declared and differs; *unchecked* where there is a doubt, or
        no value and no text for an ``absent`` one."""
        want, have = getattr(self.declared, level), getattr(self.found.fingerprint, level)
        if want is None or want == have:
            return
        have = have or absent
        why = self.found.doubts.get(doubt or level)
        if why is None and have is not None:
            yield error.finding(message, self.at(level), found=have, expected=want)
        else:
            message = f"Cannot compare {level}: {why or 'it is not known'}"
            yield unchecked.finding(message, self.at(level), found=have, expected=want)

    def architecture(self) -> Iterator[Finding]:
        want, have = self.declared.architecture, self.found.fingerprint.architecture
        same = want is not None and have is not None and family_of(want) == family_of(have)
        error = codes.HEAD if same else codes.ARCHITECTURE
        message = f"The base is a {have}"
        yield from self.level("architecture", error, codes.ARCHITECTURE_UNCHECKED, message)

    @property
    def same_structure(self) -> bool:
        want = self.declared.structure
        return want is None or want == self.found.fingerprint.structure

    @property
    def same_heads(self) -> bool:
        return self.declared.heads == self.found.fingerprint.heads

    def structure(self) -> Iterator[Finding]:
        unchecked = codes.STRUCTURE_UNCHECKED
        message = f"The base does not have the declared tensors{self._missing_names()}"
        yield from self.level("structure", codes.STRUCTURE, unchecked, message)
        architecture = self.declared.architecture
        if architecture is not None and architecture == self.found.fingerprint.architecture:
            message = "The base does not have the declared head"
            yield from self.level(
                "heads", codes.HEADS, unchecked, message, doubt="structure", absent="no head"
            )

    def _missing_names(self) -> str:
        if self.samples is None or not self.found.names:
            return ""
        missing = sorted(self.samples.backbone.keys() - self.found.names)
        return f": {some(missing, _SHOWN)} missing" if missing else ""

    def config(self) -> Iterator[Finding]:
        if self.declared.config not in self.found.configs:
            message = "The base's config differs in a field that changes what it computes"
            yield from self.level("config", codes.CONFIG, codes.CONFIG_UNCHECKED, message)

    def weights(self) -> Iterator[Finding]:
        want, have = self.declared, self.found.fingerprint
        declared, found = self.samples, self.found.samples
        if declared is not None and not _belongs(declared, want):
            message = "The sample table and the digests are of different bases"
            yield codes.SAMPLES.finding(message, self.at("weights"))
            return
        if declared is not None and found is not None:
            yield from self._by_tensor(declared.backbone, found.backbone, codes.WEIGHTS, "weights")
            if self.same_heads:
                yield from self._by_tensor(
                    declared.heads, found.heads, codes.HEAD_WEIGHTS, "head_weights"
                )
            return
        if not self.same_structure and "structure" not in self.found.doubts:
            return  # an error already, and digests over other names cannot agree
        sure = want.structure is not None and self.same_structure  # even if tensors are left out
        doubt = None if sure else self.found.doubts.get("structure")
        yield from self._by_digest(want.weights, have.weights, codes.WEIGHTS, "weights", doubt)
        if self.same_heads:
            yield from self._by_digest(
                want.head_weights, have.head_weights, codes.HEAD_WEIGHTS, "head_weights", doubt
            )

    def _by_tensor(
        self, want: Mapping[str, Sample], have: Mapping[str, Sample], error: Code, level: str
    ) -> Iterator[Finding]:
        if "weights" in self.found.doubts:  # it is or was quantised
            have = {n: s for n, s in have.items() if n in want and _is_of_one_kind(want[n], s)}
        result = agreement(want, have)
        matched = f"{len(result.same)} of {len(want)} tensors match"
        if result.different:
            yield error.finding(
                f"{len(result.different)} of {len(want)} tensors have other values "
                f"({some(result.different, _SHOWN)})",
                self.at(level),
                found=matched,
                expected=f"all {len(want)} match",
            )
        elif result.absent and (self.same_structure or "structure" in self.found.doubts):
            code = codes.WEIGHTS_PARTLY if result.same else codes.WEIGHTS_UNCHECKED
            why = self.found.doubts.get("weights")
            names = some(result.absent, _SHOWN)
            message = f"{matched}; cannot compare {len(result.absent)} ({names})"
            yield code.finding(
                f"{message}: {why}" if why else message,
                self.at(level),
                found=matched,
                expected=f"all {len(want)} match",
            )

    def _by_digest(
        self,
        want: WeightDigests | None,
        have: WeightDigests | None,
        error: Code,
        level: str,
        doubt: str | None,
    ) -> Iterator[Finding]:
        if want is None:
            return
        at = self.at(level)
        precision = None if self.found.samples is None else self.found.samples.precision
        why = self.found.doubts.get("weights") or doubt
        if have is not None and self.found.samples is not None and precision is None:
            have, why = None, "it mixes bfloat16 and float16"
        pairs = _comparable(want, have, precision) if have is not None else {}
        if any(a == b for a, b in pairs.values()):
            return
        if not pairs or why is not None:
            why = why or "none of the declared dtypes can be compared"
            yield codes.WEIGHTS_UNCHECKED.finding(f"Cannot compare {level}: {why}", at)
            return
        name, (found, expected) = next(iter(pairs.items()))
        yield error.finding(
            f"The base's values, as {name}, are not the declared ones",
            at,
            found=found,
            expected=expected,
        )

    def tokenizer(self) -> Iterator[Finding]:
        message = "The tokenizer is not the declared one"
        unchecked = codes.TOKENIZER_UNCHECKED
        yield from self.level("tokenizer", codes.TOKENIZER, unchecked, message)
        if self.found.fingerprint.tokenizer:
            code, message = codes.CHAT_TEMPLATE, "The chat template is not the declared one"
            yield from self.level("chat_template", code, unchecked, message, absent="none")


def _is_of_one_kind(left: Sample, right: Sample) -> bool:
    """A quantiser's float8 values are scaled, so they are compared only with each other."""
    return left.dtype.startswith("F8") == right.dtype.startswith("F8")


def _belongs(samples: Samples, declared: Fingerprint) -> bool:
    pairs = ((samples.backbone, declared.weights), (samples.heads, declared.head_weights))
    return all(want is None or weight_digests(have) == want for have, want in pairs)


def _comparable(
    want: WeightDigests, have: WeightDigests, precision: Precision | None
) -> dict[str, tuple[str, str]]:
    """The digests to compare, (found, declared) by precision: that of the found base, and those in
    which all of its values are exact (a bfloat16 copy in float32)."""
    first: Precision = precision or "float32"
    exact = [p for p in _PRECISIONS if p != first and getattr(have, p) == have.float32]
    found = {p: (getattr(have, p), getattr(want, p)) for p in (first, *exact)}
    return {p: (a, b) for p, (a, b) in found.items() if a is not None and b is not None}
