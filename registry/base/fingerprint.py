"""Which base this is: measured from config, headers and a few values, and compared.

A base is measured at several levels (DESIGN: fingerprints), torch-free from its files by
:func:`fingerprint_of`, and from a live model by ``loader.base.live_fingerprint``; both give
the same digests. Every digest is written ``v1:sha256:HEX`` and never changes for the same base:

- ``structure`` and ``heads``: SHA-256 of ``adapterdock structure v1\\n`` and, for each tensor of
  the backbone (of the heads) in the order of its name, ``<name> [<d0>,<d1>...]\\n``, names and
  parts as ``registry.base.backbone`` has them;
- ``config``: ``registry.base.base_config``;
- ``weights`` and ``head_weights``: ``registry.base.samples``, over the backbone's and
  the heads' floating-point tensors;
- ``tokenizer`` and ``chat_template``: ``registry.base.tokenizer``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ...manifests.findings import fingerprint as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import FingerprintError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Fingerprint, WeightDigests
from ..files.facts import BaseFacts
from ..files.precision import WIDTHS, Precision
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
    """What was found of a base.

    ``configs`` are further digests under which the same config may have been declared (fields
    written out or left to the class). ``doubts`` says, by level (``structure``, ``config``,
    ``weights``, ``tokenizer``), why the level could not be measured or why a difference there
    need not mean another base. ``names`` are the backbone's tensors.
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
    (by name, see ``TOKENIZER_FILES``) no tokenizer's. With
    ``workers`` above 1, ``read`` is called from that many threads: worth it where a read is a
    request over a network. Raises :class:`FingerprintError` for a tokenizer file that is not
    what its name says; what ``read`` raises passes through.
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
    """Of ``{canonical name: name on disk}``; ``None`` of no tensors."""
    if not names:
        return None
    lines = [
        f"{name} {json.dumps(list(shapes[disk]), separators=(',', ':'))}\n"
        for name, disk in sorted(names.items())
    ]
    content = "adapterdock structure v1\n" + "".join(lines)
    return f"v1:sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def sampled_names(parts: Split, dtypes: Mapping[str, str]) -> dict[str, str]:
    """Which tensors are sampled, canonical name to name on disk: the chosen ones that hold
    floating-point values. ``dtypes`` are safetensors' names of dtypes, by name on disk."""
    every = parts.all
    return {name: every[name] for name in chosen(n for n in every if dtypes[every[n]] in WIDTHS)}


def tables(parts: Split, samples: Mapping[str, Sample]) -> Samples:
    """Samples by canonical name as a table of backbone and heads."""
    return Samples(
        {name: sample for name, sample in samples.items() if name in parts.backbone},
        {name: sample for name, sample in samples.items() if name in parts.heads},
    )


def _sampled(base: BaseFacts, parts: Split, read: ReadFile, workers: int) -> Samples:
    names = sampled_names(parts, {name: info.dtype for name, info in base.tensors.items()})
    file_of = {tensor: file for file, header in base.headers.items() for tensor in header.tensors}

    def take(disk: str) -> Sample:
        info = base.tensors[disk]
        file = base.shard_of.get(disk) or file_of[disk]
        first, count = run(info.shape)
        width = WIDTHS[info.dtype]
        start = base.headers[file].data_start + info.start + first * width
        return Sample(info.dtype, read(file, start, count * width) if count else b"")

    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            samples = dict(zip(names, pool.map(take, names.values()), strict=True))
    else:
        samples = {name: take(disk) for name, disk in names.items()}
    return tables(parts, samples)


def compare(
    declared: Fingerprint,
    found: Measured,
    where: Where = Where(),  # noqa: B008 - frozen
    *,
    samples: Samples | None = None,
) -> list[Finding]:
    """What of ``declared`` the base ``found`` is not, level by level; empty where it is the one.

    A level that is not declared is not compared; one that is declared and could not be measured
    is an *unchecked* finding. ``samples`` is the declared sample table (the lock keeps it): with
    it each tensor is compared by itself, a mismatch names its tensors, and a base of which only
    some tensors can be read is compared in these.
    """
    check = _Check(declared, found, where, samples)
    return [
        *check.architecture(),
        *check.hidden_size(),
        *check.structure(),
        *check.config(),
        *check.weights(),
        *check.tokenizer(),
    ]


@dataclass(frozen=True)
class _Check:
    declared: Fingerprint
    found: Measured
    where: Where
    samples: Samples | None

    def at(self, level: str) -> Where:
        where = self.where
        return Where(where.file, (*where.path, level), where.line, where.column)

    def architecture(self) -> Iterable[Finding]:
        want, have = self.declared.architecture, self.found.fingerprint.architecture
        if want is None or want == have:
            return
        at = self.at("architecture")
        if have is None:
            yield codes.ARCHITECTURE_UNCHECKED.finding(
                "the base's architecture is not known", at, expected=want
            )
        elif family_of(want) == family_of(have):
            yield codes.HEAD.finding(f"the base is a {have}", at, found=have, expected=want)
        else:
            yield codes.ARCHITECTURE.finding(f"the base is a {have}", at, found=have, expected=want)

    def hidden_size(self) -> Iterable[Finding]:
        want, have = self.declared.hidden_size, self.found.fingerprint.hidden_size
        if want is None or want == have:
            return
        at = self.at("hidden_size")
        if have is None:
            yield codes.ARCHITECTURE_UNCHECKED.finding(
                "the base's hidden size is not known", at, expected=want
            )
        else:
            yield codes.HIDDEN_SIZE.finding(
                f"the base's hidden size is {have}", at, found=have, expected=want
            )

    @property
    def same_structure(self) -> bool:
        want = self.declared.structure
        return want is None or want == self.found.fingerprint.structure

    @property
    def same_heads(self) -> bool:
        return self.declared.heads == self.found.fingerprint.heads

    def structure(self) -> Iterable[Finding]:
        want, have = self.declared, self.found.fingerprint
        if not self.same_structure:
            yield self._differs(
                "structure",
                codes.STRUCTURE,
                codes.STRUCTURE_UNCHECKED,
                f"the base's tensors are not the declared ones{self._other_names()}",
                have.structure,
                want.structure,
            )
        same_class = want.architecture is not None and want.architecture == have.architecture
        if same_class and want.heads is not None and not self.same_heads:
            yield self._differs(
                "heads",
                codes.HEADS,
                codes.STRUCTURE_UNCHECKED,
                "the base's head is not the declared one",
                have.heads or "no head",
                want.heads,
                doubt="structure",
            )

    def _other_names(self) -> str:
        if self.samples is None or not self.found.names:
            return ""
        names = self.samples.backbone.keys()
        missing = sorted(names - self.found.names)
        return f": {_some(missing)} missing" if missing else ""

    def config(self) -> Iterable[Finding]:
        want, have = self.declared.config, self.found.fingerprint.config
        if want is None or want == have or want in self.found.configs:
            return
        yield self._differs(
            "config",
            codes.CONFIG,
            codes.CONFIG_UNCHECKED,
            "the base's config differs in a field that changes what it computes",
            have,
            want,
        )

    def _differs(
        self,
        level: str,
        error: Code,
        unchecked: Code,
        message: str,
        found: str | None,
        expected: str | None,
        doubt: str | None = None,
    ) -> Finding:
        """An error; *unchecked* where there is a doubt, or nothing to compare."""
        why = self.found.doubts.get(doubt or level)
        if why is None and found is not None:
            return error.finding(message, self.at(level), found=found, expected=expected)
        return unchecked.finding(
            f"{level}: {why or 'it could not be measured'}",
            self.at(level),
            found=found,
            expected=expected,
        )

    def weights(self) -> Iterable[Finding]:
        want, have = self.declared, self.found.fingerprint
        declared, found = self.samples, self.found.samples
        if declared is not None and not _belongs(declared, want):
            yield codes.SAMPLES.finding(
                "the sample table and the digests are of two bases", self.at("weights")
            )
            return
        if declared is not None and found is not None:
            yield from self._by_tensor(declared.backbone, found.backbone, codes.WEIGHTS, "weights")
            if self.same_heads:
                yield from self._by_tensor(
                    declared.heads, found.heads, codes.HEAD_WEIGHTS, "head_weights"
                )
            return
        if not self.same_structure and "structure" not in self.found.doubts:
            return  # an error already, and no two digests over other names can agree
        sure = want.structure is not None and self.same_structure  # whatever may be left out
        doubt = None if sure else self.found.doubts.get("structure")
        yield from self._by_digest(want.weights, have.weights, codes.WEIGHTS, "weights", doubt)
        if self.same_heads:
            yield from self._by_digest(
                want.head_weights, have.head_weights, codes.HEAD_WEIGHTS, "head_weights", doubt
            )

    def _by_tensor(
        self, want: Mapping[str, Sample], have: Mapping[str, Sample], error: Code, level: str
    ) -> Iterable[Finding]:
        if "weights" in self.found.doubts:  # it is quantised, or was
            have = {n: s for n, s in have.items() if n in want and _is_of_one_kind(want[n], s)}
        result = agreement(want, have)
        matched = f"{len(result.same)} of {len(want)} tensors match"
        if result.different:
            yield error.finding(
                f"{len(result.different)} of {len(want)} tensors have other values "
                f"({_some(result.different)})",
                self.at(level),
                found=matched,
                expected=f"all {len(want)} match",
            )
        elif result.absent and (self.same_structure or "structure" in self.found.doubts):
            code = codes.WEIGHTS_PARTLY if result.same else codes.WEIGHTS_UNCHECKED
            why = self.found.doubts.get("weights")
            yield code.finding(
                f"{matched}; {len(result.absent)} could not be compared ({_some(result.absent)})"
                + (f": {why}" if why else ""),
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
    ) -> Iterable[Finding]:
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
            yield codes.WEIGHTS_UNCHECKED.finding(
                f"{level}: {why or 'no dtype is declared that the base could be compared in'}", at
            )
            return
        name, (found, expected) = next(iter(pairs.items()))
        yield error.finding(
            f"the base's values, as {name}, are not the declared ones",
            self.at(level),
            found=found,
            expected=expected,
        )

    def tokenizer(self) -> Iterable[Finding]:
        want, have = self.declared, self.found.fingerprint
        if want.tokenizer is not None and want.tokenizer != have.tokenizer:
            yield self._differs(
                "tokenizer",
                codes.TOKENIZER,
                codes.TOKENIZER_UNCHECKED,
                "the tokenizer is not the declared one",
                have.tokenizer,
                want.tokenizer,
            )
        template = have.chat_template
        if want.chat_template is not None and have.tokenizer and want.chat_template != template:
            yield codes.CHAT_TEMPLATE.finding(
                "the chat template is not the declared one",
                self.at("chat_template"),
                found=template or "none",
                expected=want.chat_template,
            )


def _is_of_one_kind(one: Sample, other: Sample) -> bool:
    """A quantiser's float8 values are scaled, so that they are compared with such only."""
    return one.dtype.startswith("F8") == other.dtype.startswith("F8")


def _belongs(samples: Samples, declared: Fingerprint) -> bool:
    pairs = ((samples.backbone, declared.weights), (samples.heads, declared.head_weights))
    return all(want is None or weight_digests(have) == want for have, want in pairs)


def _comparable(
    want: WeightDigests, have: WeightDigests, precision: Precision | None
) -> dict[str, tuple[str, str]]:
    """The digests to compare, (found, declared) by precision: at what the found base was loaded
    or stored in, and at what all of its values are exact in (a bfloat16 copy in float32)."""
    first: Precision = precision or "float32"
    exact = [p for p in _PRECISIONS if p != first and getattr(have, p) == have.float32]
    found = {p: (getattr(have, p), getattr(want, p)) for p in (first, *exact)}
    return {p: (a, b) for p, (a, b) in found.items() if a is not None and b is not None}


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
