"""What one version of an engine does with what an adapter asks for: a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

Version = tuple[int, ...]
"""``(0, 32)``: the numbers of a version, as many as were said."""


class Feature(str, Enum):
    """What an adapter may ask of an engine besides plain LoRA on linear layers. The value is how
    messages name it."""

    DORA = "DoRA"
    LORA_BIAS = "a bias in lora_B (lora_bias)"
    BIAS = "trained biases of the base"
    SAVED = "replaced modules (modules_to_save)"
    HEAD = "a classification head (modules_to_save)"
    INIT = "this initialisation, which changes the base"
    ALORA = "aLoRA"
    BDLORA = "BD-LoRA"
    QALORA = "QA-LoRA"
    VELORA = "VeLoRA"
    REPLICATION = "layer_replication"
    TOKENS = "trained rows of an embedding (trainable_token_indices)"
    PARAMETERS = "factors of single parameters (target_parameters)"
    EXPERTS = "LoRA on experts"
    RANKS = "ranks that differ by module (rank_pattern)"
    SCALES = "scales that differ by module (alpha_pattern)"
    RSLORA = "rsLoRA"
    EMBEDDING = "LoRA on an embedding"
    OUTPUT = "LoRA on the output layer"
    TIED = "LoRA on an output layer that is tied to the embedding"
    KIND = "LoRA on modules that are not linear"
    TOWER = "LoRA outside the language model"
    QKV = "LoRA on only some of q_proj, k_proj and v_proj"
    PATTERN = "a pattern in target_modules"
    STORED = "complete embeddings (save_embedding_layers)"
    TYING = "adapters of tied layers (ensure_weight_tying)"
    NAMES = "module names that differ from the base's"
    OLDER = "module names of an older transformers"
    PREFIX = "tensor names without PEFT's prefix base_model.model."
    KEYS = "tensors with these names"
    FIELDS = "a config without r, lora_alpha or target_modules"
    FILES = "weights in this file"
    NEW = "a new adapter, which has no files"
    VOCABULARY = "a base with another vocab_size than its files have"
    CLASS = "a base that is loaded as another class than config.json says"
    QUANTISED = "LoRA on this quantised checkpoint"

    def __str__(self) -> str:
        return self.value


class How(Enum):
    """What an engine does with a feature that it does not serve."""

    REFUSES = "it refuses to load the adapter"
    MISREADS = "it loads the adapter without an error, and computes something else"
    CANNOT = ""
    """It is not served; how that shows was not tried."""
    UNKNOWN = "?"
    """It is not known whether it is served."""


@dataclass(frozen=True)
class Models:
    """The architectures that an engine lists.

    Attributes:
        serves: By architecture, the modules beside linear ones that take LoRA (``embed_tokens``).
        without: Architectures that the engine runs, but without LoRA.
    """

    serves: Mapping[str, frozenset[str]]
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """What an engine serves from the version ``since`` on, to the next row.

    Attributes:
        since: The first version that the row is for.
        unserved: The features that are not served, and what happens then.
        heads: Names of heads in ``modules_to_save`` that are served, on a base with such a head.
        models: A name of the committed table of architectures; empty where any is tried.
        architectures: The architectures that it is limited to, if it is.
        ranks: The values that the server takes as its largest rank; empty for any.
        limit: The largest rank where the server is not told one; ``None`` for no limit.
    """

    since: Version
    unserved: Mapping[Feature, How]
    heads: frozenset[str] = frozenset()
    models: str = ""
    architectures: frozenset[str] | None = None
    ranks: tuple[int, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Engine:
    """An engine by the name that ``--target`` takes.

    Attributes:
        title: As its makers write it.
        rows: What its versions serve, the oldest first.
        max_rank: Its own option for the largest rank; empty where it has none.
        max_loras: Its own option for how many adapters run in one batch.
        dtype: Whether all adapters have one dtype, which the server decides.
        source: Where the rows are from.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    max_rank: str = ""
    max_loras: str = ""
    dtype: bool = True
    source: str = ""

    def row_of(self, version: Version | None) -> Row | None:
        """The newest row that is not newer than ``version`` (of all, without one); ``None`` for a
        version before the oldest."""
        if version is None:
            return self.rows[-1]
        older = [row for row in self.rows if row.since <= version]
        return older[-1] if older else None


def unserved(*maps: Mapping[Feature, How], **more: How) -> Mapping[Feature, How]:
    """One map of several; ``more`` are by the names of features."""
    found: dict[Feature, How] = {}
    for one in maps:
        found |= one
    found |= {Feature[name]: how for name, how in more.items()}
    return MappingProxyType(found)


@dataclass(frozen=True)
class Need:
    """What an adapter asks for: the feature, and what shows it."""

    feature: Feature
    found: str = field(default="", compare=False)
