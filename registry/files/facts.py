"""What is known of a base and an adapter before any weight is read. Frozen, and torch-free."""

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
"""The metadata of an adapter's file in which the base that it was saved on is recorded."""
DIGEST_RECORD = "adapterdock.digest"
"""The metadata in which a saved adapter keeps the digest that it was loaded by: the random masks
of its compositions are drawn by it, and stay the same ones."""


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
    """A parsed safetensors header. ``data_start`` is where offset 0 lies in the file (bytes).

    ``digest`` is the sha256 (hex) of the file's bytes up to there.
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
    """One consumed file. ``version`` is what pins it where it lies (S3 VersionId or ETag, the
    Hub's blob id); ``sha256`` (``sha256:HEX``) is known once the content was hashed or vouched
    for by the Hub's LFS record."""

    path: str
    size: int
    sha256: str | None = None
    version: str | None = None


class ModuleKind(str, Enum):
    """What a module does with its weight, as far as an adapter is concerned."""

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
    """Anything else that owns parameters, or that only contains modules."""


SIZED = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING, ModuleKind.CONV})
"""Kinds with sizes of their own; without them the sizes are not known."""


@dataclass(frozen=True)
class ModuleShape:
    """One module of the live model. ``in_features`` and ``out_features`` are what an adapter's
    factors must have (for a convolution: its channels); ``parameters`` are its own, by name, and
    ``buffers`` those that are saved with it (a batch norm's statistics). One that is not ``called``
    never runs: the model computes with its weight (``nn.MultiheadAttention`` with that of its
    ``out_proj``), and nothing can act on what goes in or comes out."""

    kind: ModuleKind
    in_features: int | None = None
    out_features: int | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kernel: tuple[int, ...] = ()
    groups: int = 1
    buffers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    called: bool = True


EMBEDS, CACHED = "inputs_embeds", "past_key_values"
INPUTS = frozenset({EMBEDS, CACHED})
"""What a model may take beside the ids of tokens."""


@dataclass(frozen=True)
class Layout:
    """The live model's modules by their names, in the order of the model.

    Built from a header by ``registry.base.architectures``, or from a live model by
    the loader: the checks cannot tell which. ``modules`` holds containers too (kind ``OTHER``),
    so that a name that exists is told from one that does not, but nothing without a parameter
    (activations, dropout). A linear, embedding or convolution without ``in_features`` and
    ``out_features`` is one whose sizes are not known. ``output_modules`` are the output
    embeddings or heads, which PEFT's ``all-linear`` leaves out. ``tied`` maps a tied parameter
    to the one whose storage it shares (``lm_head.weight`` to ``model.embed_tokens.weight``).
    ``prefix`` is transformers' ``base_model_prefix``. ``packed`` are the parameters that the
    checkpoint holds quantised, ``None`` where no checkpoint was asked. ``conversions`` gives the
    rules by which names of older versions become these; they are read where an adapter has such
    names. ``inputs`` are those of :data:`INPUTS` that the model takes, whatever their values;
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
        """By module, its own parameters that are packed in a way that hides their sizes, and that
        its ``parameters`` lack therefore."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.packed or ()):
            module, _, own = name.rpartition(".")
            if module in self.modules and own not in self.modules[module].parameters:
                found.setdefault(module, []).append(own)
        return found


@dataclass(frozen=True)
class TokenizerFacts:
    """``rows`` is the number of ids the tokenizer can produce (highest id + 1)."""

    rows: int
    added: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseFacts:
    """A base checkpoint, from its config and headers.

    ``tensors`` are by their names on disk. ``layout`` is ``None`` where the architecture's live
    names are not known (which makes fit *unchecked*). ``shard_of`` says in which file a tensor is.
    ``loaded_as`` says how it is loaded where config.json does not say it; ``layout`` is then that
    of the model that is loaded, while ``config`` and ``tensors`` stay those on disk. ``told`` has
    the sizes of packed weights that a quantiser wrote out in words.
    """

    source: Source | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    layout: Layout | None
    shard_of: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)
    files: tuple[FileFact, ...] = ()
    revision: str | None = None
    tokenizer: TokenizerFacts | None = None
    loaded_as: LoadedAs | None = None
    told: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def loaded_config(self) -> Mapping[str, Any]:
        """``config`` as of the model that is loaded."""
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
    """A base's config.json as of the model that it is loaded as."""
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
    """What is to be known of an adapter that PEFT did not write as it is read.

    ``format`` is who wrote it. ``wrappers`` are parts of its names that are left out
    (``_orig_mod``). ``layers`` is mlx-lm's ``num_layers``: how many of the last layers were
    trained (0 or less for all), ``keys`` its names of modules inside a layer.
    """

    format: str
    wrappers: tuple[str, ...] = ()
    layers: int | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterFacts:
    """One adapter, from ``adapter_config.json`` and the header of its weights.

    ``config`` is the parsed JSON as it is (of another program's adapter, as PEFT would have
    written it: see ``origin``); methods read it through their own typed view. ``headers`` are those
    of its files as they are, by path, and ``parts`` says what each tensor of ``header`` is made of;
    it is empty where they lie in their one file just as ``header`` says.
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
        """Whether its file carries the fingerprint of the base that it was saved on."""
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
    or others where the method has them). ``scale`` multiplies the delta; ``settings`` are what else
    of the config acts at the site.
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
        """The module whose forward reads what is adapted: the site's own, if no other does."""
        return self.settings.get(TARGET, self.module)


@dataclass(frozen=True)
class PeftPlan:
    """What PEFT is asked to make of an adapter whose method has no native file here.

    ``config`` are the method's own fields, as they are in the file but for the maps from patterns
    to values, which have modules in their place. ``targets`` are the names in ``target_modules``,
    ``None`` where that is a pattern. ``authors`` maps each adapted live module to the file's name
    for it, in the order of the model; ``shared`` are tensors that belong to no module: name to
    key.
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
    """A tensor of today that is made of others: zeros in the shape ``view``, with the ``pieces``
    put in."""

    view: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Conversion:
    """An adapter with names and layouts of an older transformers, as one of today.

    ``header`` has the tensors by today's names, ``sources`` says for each which of the file it is,
    or what it is made of (``header`` is then of a file that nobody wrote). ``config`` names
    today's modules.
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

    ``saved`` are whole modules stored with the adapter (``modules_to_save``): live module name
    to {parameter path under it: tensor name}. ``biases`` are trained biases of the base: live
    module name to tensor name. ``embeddings`` are whole input or output embeddings that PEFT
    stored beside the factors (``save_embedding_layers``): module name to tensor name.
    ``tuned`` are whole modules that the method itself trains (LN tuning), in the form of
    ``saved``; ``tuned_by`` is that method.
    ``prompt`` is what acts on the model as a whole (virtual tokens), its module is ``""``.
    ``leftovers`` are tensors with no place, each of which is an error. ``peft`` is there where
    the sites are PEFT's to make. With a ``conversion`` the names of tensors are those of its
    header.
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
        """``facts`` with the config and the header that this plan is for."""
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
