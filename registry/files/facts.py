"""The facts of a base and an adapter before any weight is read: frozen data, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from ...manifests.language.source import Source
from ...manifests.lockfile import LoadedAs
from .conversion import Rule

BASE_RECORD = "adapterdock.base_fingerprint"
"""The metadata key for the base that an adapter was saved on."""
DIGEST_RECORD = "adapterdock.digest"
"""The metadata key for the digest that a saved adapter was loaded by. The random masks of its
compositions depend on it, so that they stay the same."""


class TensorInfo(NamedTuple):
    """One row of a safetensors header; ``start`` and ``end`` are offsets into the data part."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0

    @property
    def nbytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """A parsed safetensors header. ``data_start`` is the place of offset 0 in the file (bytes).

    ``digest`` is the sha256 (hex) of the file's bytes before that.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 0
    size: int = 0
    digest: str = field(default="", compare=False)


class StoredTensor(NamedTuple):
    """The part of a file that is a tensor: ``rows`` (first, end) of the tensor ``name``, seen as
    (rows, last axis), or all of it as it is. ``turned`` exchanges its two axes."""

    file: str
    name: str
    rows: tuple[int, int] | None = None
    turned: bool = False


@dataclass(frozen=True)
class FileFact:
    """One consumed file. ``version`` pins it at its source (S3 VersionId or ETag, the Hub's blob
    id); ``sha256`` (``sha256:HEX``) is known once the content was hashed, or from the Hub's LFS
    record."""

    path: str
    size: int
    sha256: str | None = None
    version: str | None = None


class ModuleKind(str, Enum):
    """What a module does with its weight, as far as adapters need it."""

    LINEAR = "linear"
    """``nn.Linear``: weight (out, in)."""
    CONV1D = "conv1d"
    """Hugging Face's ``Conv1D``: weight (in, out)."""
    EMBEDDING = "embedding"
    """``nn.Embedding``: weight (num_embeddings, embedding_dim); in is the number of rows."""
    CONV = "conv"
    """``nn.Conv1d``, ``2d``, ``3d``: weight (out, in / groups, *kernel)."""
    NORM = "norm"
    """A one-dimensional weight."""
    OTHER = "other"
    """Other modules that own parameters, or only contain modules."""


SIZED = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING, ModuleKind.CONV})
"""Kinds that have ``in_features`` and ``out_features``, unless these are unknown."""


@dataclass(frozen=True)
class ModuleShape:
    """One module of the live model. ``in_features`` and ``out_features`` are the sizes that an
    adapter's factors need (for a convolution: its channels); ``parameters`` are its own, by name,
    and ``buffers`` those that are saved with it (a batch norm's statistics). A module that is not
    ``called`` never runs: the model computes with its weight (``nn.MultiheadAttention`` with that
    of its ``out_proj``), so nothing can change its input or output."""

    kind: ModuleKind
    in_features: int | None = None
    out_features: int | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kernel: tuple[int, ...] = ()
    groups: int = 1
    buffers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    called: bool = True


EMBEDS, CACHED = "inputs_embeds", "past_key_values"
DECODED = "decoder_input_ids"
INPUTS = frozenset({EMBEDS, CACHED, DECODED})
"""Inputs that a model may take instead of, or with, the ids of tokens."""


@dataclass(frozen=True)
class Layout:
    """The live model's modules by their names, in the order of the model.

    Made from a header by ``registry.base.architectures``, or from a live model by the loader; the
    checks treat both alike. ``modules`` has containers too (kind ``OTHER``), so that all existing
    names are known, but no modules without parameters (activations, dropout). The sizes of a
    linear, embedding or convolution without ``in_features`` and ``out_features`` are unknown.
    ``output_modules`` are the output embeddings or heads, which PEFT's ``all-linear`` leaves out.
    ``tied`` maps a tied parameter to the one whose storage it shares (``lm_head.weight`` to
    ``model.embed_tokens.weight``). ``prefix`` is transformers' ``base_model_prefix``. ``packed``
    are the parameters that are quantised in the checkpoint, ``None`` without a checkpoint.
    ``conversions`` returns the rules from names of older versions to these; they are read for an
    adapter with such names. ``inputs`` are those of :data:`INPUTS` that the model takes;
    ``model_type`` is the config's.
    """

    modules: Mapping[str, ModuleShape]
    output_modules: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    packed: frozenset[str] | None = None
    inputs: frozenset[str] = INPUTS
    model_type: str = ""
    conversions: Callable[[], Sequence[Rule]] | None = field(
        default=None, compare=False, repr=False
    )

    def is_of_model(self, other: Layout) -> bool:
        """Whether both say the same of every module, and nothing is packed whose size one of them
        may not know."""
        if self is other:
            return True
        packed = self.packed or other.packed
        return not packed and replace(self, packed=None) == replace(other, packed=None)

    @cached_property
    def unsized(self) -> dict[str, list[str]]:
        """By module, its own parameters that are packed in a way that hides their sizes; they are
        not in its ``parameters``."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.packed or ()):
            module, _, own = name.rpartition(".")
            if module in self.modules and own not in self.modules[module].parameters:
                found.setdefault(module, []).append(own)
        return found


@dataclass(frozen=True)
class TokenizerFacts:
    """``rows`` is the number of ids that the tokenizer can produce (highest id + 1)."""

    rows: int
    added: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseFacts:
    """A base checkpoint, from its config and headers.

    ``tensors`` are by their names on disk. ``layout`` is ``None`` for an unknown architecture (fit
    is then *unchecked*). ``loaded_as`` has what differs
    from config.json when it is loaded; ``layout`` is then that of the loaded model, while
    ``config`` and ``tensors`` stay those on disk. ``reported_sizes`` are the sizes of packed
    weights that a quantiser wrote into the files.
    """

    source: Source | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    layout: Layout | None
    headers: Mapping[str, Header] = field(default_factory=dict)
    files: tuple[FileFact, ...] = ()
    revision: str | None = None
    tokenizer: TokenizerFacts | None = None
    loaded_as: LoadedAs | None = None
    reported_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def loaded_config(self) -> Mapping[str, Any]:
        """The config of the model that is loaded."""
        if self.loaded_as is None:
            return self.config
        said, rows = config_as(self.config, self.loaded_as), self.loaded_as.vocab_size
        text = said.get("text_config")
        if rows is not None and isinstance(text, dict):
            said["text_config"] = {**text, "vocab_size": rows}
        elif rows is not None:
            said["vocab_size"] = rows
        return said

    @property
    def architecture(self) -> str | None:
        """``LlamaForCausalLM``: the first of config.json's ``architectures``."""
        names = self.config.get("architectures")
        first = names[0] if isinstance(names, list) and names else None
        return first if isinstance(first, str) else None

    @property
    def model_type(self) -> str | None:
        value = self.config.get("model_type")
        return value if isinstance(value, str) else None


def config_as(config: Mapping[str, Any], loaded: LoadedAs) -> dict[str, Any]:
    """A base's config.json, changed to that of the model that is loaded."""
    said: dict[str, Any] = dict(config)
    if loaded.architecture is not None:
        said["architectures"] = [loaded.architecture]
    if loaded.num_labels is not None:
        names = loaded.id2label or {str(n): f"LABEL_{n}" for n in range(loaded.num_labels)}
        said["id2label"] = dict(names)
        said["label2id"] = {name: int(at) for at, name in names.items()}
    return said


@dataclass(frozen=True)
class Origin:
    """The origin of an adapter that was converted to PEFT's format.

    ``format`` is the program that wrote it. ``wrappers`` are parts of names that are left out
    (``_orig_mod``). ``layers`` is mlx-lm's ``num_layers``: how many of the last layers were trained
    (0 or less for all), ``keys`` its names of modules inside a layer.
    """

    format: str
    wrappers: tuple[str, ...] = ()
    layers: int | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterFacts:
    """One adapter, from ``adapter_config.json`` and the header of its weights.

    ``config`` is the parsed JSON (for another program's adapter, converted to PEFT's: see
    ``origin``); each method has its own typed view of it. ``headers`` are those of its files, by
    path. ``parts`` says what each tensor of ``header`` is made of; it is empty if one file has them
    as ``header`` says.
    """

    name: str
    source: Source | None
    config: Mapping[str, Any]
    header: Header
    files: tuple[FileFact, ...] = ()
    revision: str | None = None
    origin: Origin | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    parts: Mapping[str, StoredTensor] = field(default_factory=dict)

    @property
    def records_base(self) -> bool:
        """Whether its file records the fingerprint of the base that it was saved on."""
        return BASE_RECORD in self.header.metadata

    @property
    def peft_type(self) -> str | None:
        value = self.config.get("peft_type")
        return value if isinstance(value, str) else None


TARGET = "target"
"""Setting of a site: the module that the config names, whose forward reads the site's parameter."""


class SitePlan(NamedTuple):
    """One adapted place: the tensors of one method at one live module.

    ``tensors`` maps the method's roles to names in the file (LoRA: ``A``, ``B``, and ``A_bias``
    or others where the method has them). ``scale`` is the factor of the delta; ``settings`` are the
    other fields of the config that act at the site.
    """

    module: str
    method: str
    tensors: Mapping[str, str]
    rank: int
    alpha: float
    scale: float
    settings: Mapping[str, Any] = MappingProxyType({})

    @property
    def reader(self) -> str:
        """The module whose forward reads the adapted parameter: the site's own, if not another."""
        return self.settings.get(TARGET, self.module)


@dataclass(frozen=True)
class PeftPlan:
    """The part of a plan that PEFT carries out, for a method without a native implementation.

    ``config`` are the method's own fields as in the file, except that maps from patterns to values
    have modules instead of patterns. ``targets`` are the names in ``target_modules``, ``None`` for
    a pattern. ``authors`` maps each adapted live module to its name in the file, in the order of
    the model; ``shared`` are tensors that belong to no module: name to key.
    """

    method: str
    config: Mapping[str, Any]
    targets: tuple[str, ...] | None
    authors: Mapping[str, str]
    shared: Mapping[str, str] = field(default_factory=dict)


class Piece(NamedTuple):
    """The rows ``rows`` of the file's tensor ``key``, times ``factor``, put at ``at`` of the view
    of a :class:`Joined` tensor."""

    key: str
    at: tuple[int | slice, ...]
    rows: slice = slice(None)
    factor: float = 1.0


@dataclass(frozen=True)
class Joined:
    """A tensor that is made of older ones: zeros in the shape ``view``, with the ``pieces`` put
    in."""

    view: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Conversion:
    """An adapter with names and layouts of an older transformers, converted to current ones.

    ``header`` has the tensors by current names (of a file that does not exist), ``sources`` says
    for each which tensor of the file it is, or what it is made of. ``config`` names current
    modules.
    """

    config: Mapping[str, Any]
    header: Header
    sources: Mapping[str, str | Joined]

    @property
    def only_renames(self) -> bool:
        """Whether every tensor stays as it is in the file."""
        return not any(isinstance(source, Joined) for source in self.sources.values())


@dataclass(frozen=True)
class AdapterPlan:
    """Where every tensor of an adapter goes: decided from config and header alone.

    ``saved`` are the replaced modules (``modules_to_save``): live module name to {parameter path
    under it: tensor name}. ``biases`` are trained biases of the base: live module name to tensor
    name. ``embeddings`` are complete input or output embeddings that PEFT stored beside the factors
    (``save_embedding_layers``): module name to tensor name. ``tuned`` are modules that the method
    itself replaces (LN tuning), in the form of ``saved``; ``tuned_by`` is that method. ``prompt``
    acts on the complete model (virtual tokens), its module is ``""``. ``leftovers`` are tensors
    without a place, each of which is an error. ``peft`` is set where PEFT makes the sites. With a
    ``conversion`` the names of tensors are those of its header.
    """

    sites: tuple[SitePlan, ...]
    saved: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    tuned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tuned_by: str = ""
    prompt: SitePlan | None = None
    peft: PeftPlan | None = None
    conversion: Conversion | None = None

    def converted(self, facts: AdapterFacts) -> AdapterFacts:
        """``facts`` with the config and the header of this plan."""
        if self.conversion is None:
            return facts
        return replace(facts, config=self.conversion.config, header=self.conversion.header)

    @property
    def rank(self) -> int:
        """The largest rank at any site (0 for an adapter without factors)."""
        return max((site.rank for site in self.sites), default=0)

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(site.module for site in self.sites)

    @property
    def targets(self) -> tuple[str, ...]:
        """The adapted modules by their last name: ``q_proj``, ``v_proj``."""
        modules = (*self.modules, *self.saved, *self.tuned, *self.embeddings)
        return tuple(sorted({module.rpartition(".")[2] for module in modules}))
