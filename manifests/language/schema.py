"""The manifest as frozen models: what every key means, once variables are expanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    field_validator,
)

from .combine_methods import Combine
from .frozen import FrozenDict
from .names import NAME_PATTERN
from .source import Source

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
FINGERPRINT_PATTERN = r"^v1:sha256:[0-9a-f]{64}$"
BYTE_SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,15})? ?([KMGT]i?|k)?B$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
FingerprintDigest = Annotated[str, StringConstraints(pattern=FINGERPRINT_PATTERN)]
URL_PREFIX_PATTERN = r"^[A-Za-z][A-Za-z0-9+.-]+://"
UrlPrefix = Annotated[str, StringConstraints(pattern=URL_PREFIX_PATTERN)]
ByteSize = Annotated[str, StringConstraints(pattern=BYTE_SIZE_PATTERN)]
Globs = Annotated[Mapping[str, float], Field(min_length=1)]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]


class Model(BaseModel):
    """Frozen, and closed: an unknown key is an error (``x-`` keys were removed before)."""

    # Built on first use: a nested model is seldom needed by itself.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @field_validator("*", mode="after")
    @classmethod
    def _freeze(cls, value: Any) -> Any:
        return FrozenDict(value) if isinstance(value, dict) else value


Task = Literal[
    "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"
]
"""PEFT's task types."""


class WeightDigests(Model):
    """Digests of sampled weights, widened to float32 or rounded to the others."""

    float32: FingerprintDigest | None = Field(default=None, description="of the values as float32")
    bfloat16: FingerprintDigest | None = Field(default=None, description="rounded to bfloat16")
    float16: FingerprintDigest | None = Field(default=None, description="rounded to float16")


class Fingerprint(Model):
    """Identifies a base, at every level that can be compared. Written by ``fingerprint``."""

    architecture: str | None = Field(
        default=None, description="the class in config.json's architectures"
    )
    hidden_size: int | None = Field(default=None, gt=0, description="as in config.json")
    structure: FingerprintDigest | None = Field(
        default=None, description="every backbone tensor's name on disk and shape"
    )
    heads: FingerprintDigest | None = Field(default=None, description="the same for the heads")
    config: FingerprintDigest | None = Field(
        default=None, description="the config fields that change the computation"
    )
    weights: WeightDigests | None = Field(None, description="of the backbone's tensors")
    head_weights: WeightDigests | None = Field(None, description="of the heads'")
    tokenizer: FingerprintDigest | None = Field(
        default=None, description="the vocabulary, and what splits text into it"
    )
    chat_template: FingerprintDigest | None = Field(
        default=None, description="the text of the template"
    )


class Base(Model):
    """The base model. ``base: {}`` declares none: for ``attach`` to a loaded model."""

    model: Source | None = Field(
        default=None, description="where it is: a folder, hf://, s3:// or another URL"
    )
    aliases: tuple[str, ...] = Field(default=(), description="other names of the same base")
    dtype: Dtype = Field(default="auto", description="of its weights; auto: as config.json says")
    device_map: str | Mapping[str, str | int] | None = Field(
        default=None, description='auto, cpu, cuda:0, {"": 0} or {module: device}'
    )
    float32_modules: tuple[str, ...] = Field(
        default=(), description="globs of modules kept in float32; outputs are cast back"
    )
    quantization: Mapping[str, Any] | None = Field(
        default=None, description="passed on to transformers' quantization config"
    )
    attn_implementation: str | None = Field(
        default=None, description="passed on to transformers, such as sdpa"
    )
    task: Task | None = Field(
        default=None, description="decides the class; default: the adapters' task, or config.json"
    )
    num_labels: int | None = Field(
        default=None,
        gt=0,
        description="labels of the classification head; default: the adapters' number",
    )
    id2label: Mapping[str, str] | None = Field(
        default=None, min_length=1, description="names of the labels: {0: negative, 1: positive}"
    )
    vocab_size: int | None = Field(
        default=None, gt=0, description="number of rows that the token embeddings are resized to"
    )
    trust_remote_code: bool = Field(
        default=False, description="runs the repository's own code, at the locked revision"
    )
    storage_options: Mapping[str, Any] = Field(
        default_factory=FrozenDict, description="passed to fsspec; nothing secret"
    )
    fingerprint: Fingerprint | None = Field(
        default=None, description="compared with the base before anything is attached"
    )


class Adapter(Model):
    """One adapter: where it is, or the config that creates it; and how it is attached."""

    source: Source | None = Field(
        default=None, description="where it is: a folder, hf://, s3:// or another URL"
    )
    config: Mapping[str, Any] | None = Field(
        default=None,
        description="instead of a source: fields of PEFT's config, which create a new adapter",
    )
    seed: int | None = Field(
        default=None, ge=0, description="seed of a new adapter's initial values; default: 0"
    )
    sha256: Digest | None = Field(default=None, description="digest of its folder")
    storage_options: Mapping[str, Any] = Field(
        default_factory=FrozenDict, description="passed to fsspec; nothing secret"
    )
    dtype: Dtype | None = Field(default=None, description="default: the base's compute dtype")
    trainable: bool = Field(default=False, description="attached for training")
    lazy: bool = Field(False, description="weights are read on first use")
    mutable: bool = Field(False, description="local and still changing: not locked")
    owner: str | None = Field(default=None, description="for people; not used")
    licence: str | None = Field(default=None, description="for people; not used")
    description: str | None = Field(default=None, description="for people; not used")
    tags: tuple[str, ...] = Field(default=(), description="for people; not used")


class Composition(Model):
    """Several adapters that act as one, under one name."""

    combine: Combine = Field(
        default="sum", description="how; PEFT's names and definitions, and an exact sum"
    )
    of: Mapping[Name, float | Globs] = Field(
        min_length=1, description="adapter: weight, or for a sum {glob of modules: weight}"
    )
    density: float | None = Field(
        default=None, gt=0, le=1, description="share of values that pruning keeps"
    )
    majority_sign_method: Literal["total", "frequency"] | None = Field(
        default=None, description="how ties elects signs; default: total"
    )
    svd_rank: int | None = Field(
        default=None, gt=0, description="rank of the result; default: the members' largest"
    )
    svd_clamp: float | None = Field(
        default=None, gt=0, le=1, description="a quantile that bounds the factors of an SVD"
    )
    seed: int | None = Field(default=None, ge=0, description="random methods need one")

    @field_validator("of", mode="after")
    @classmethod
    def _freeze_globs(cls, of: Mapping[str, Any]) -> Any:
        return FrozenDict({k: FrozenDict(v) if isinstance(v, dict) else v for k, v in of.items()})


class Rules(Model):
    """They hold for every set of active adapters, however it is set."""

    exclusive: tuple[tuple[Name, ...], ...] = Field(
        default=(), description="groups; at most one adapter of each is active"
    )
    requires: Mapping[Name, tuple[Name, ...]] = Field(
        default_factory=FrozenDict, description="adapter: others that must be active with it"
    )
    max_active: int | None = Field(
        default=None, gt=0, description="largest number of active adapters"
    )
    max_total_rank: int | None = Field(default=None, gt=0, description="largest sum of their ranks")


SignedKind = Literal["entries", "aliases", "marks"]
"""What in a registry can be signed: versions, values of aliases, and marks such as yanked."""
REGISTRY_ID_PATTERN = r"^[0-9A-Za-z]{16,64}$"


class RequiredSignatures(Model):
    """By whom something in a registry must be signed."""

    of: tuple[SignedKind, ...] = Field(
        default=("entries",), min_length=1, description="entries, aliases, marks: what is signed"
    )
    keys: tuple[str, ...] = Field(
        min_length=1, description="public keys: paths of PEM files, or PEM itself"
    )
    threshold: int = Field(default=1, ge=1, description="how many of them must have signed")


class RequiredModelSignature(Model):
    """By whom the folder of an adapter must be signed: OpenSSF's ``model.sig`` in it."""

    keys: tuple[str, ...] = Field(
        min_length=1, description="public keys: paths of PEM files, or PEM itself"
    )
    threshold: int = Field(default=1, ge=1, description="how many of them must have signed")


class AllowedRegistry(Model):
    """A registry that may be used, and by whom its contents must be signed."""

    url: Source = Field(description="where it is")
    id: Annotated[str, StringConstraints(pattern=REGISTRY_ID_PATTERN)] | None = Field(
        default=None, description="the id in its registry.json; prevents mix-ups"
    )
    of: tuple[SignedKind, ...] = Field(
        default=("entries",), min_length=1, description="what is signed by `keys`"
    )
    keys: tuple[str, ...] = Field(
        default=(), min_length=1, description="public keys: paths of PEM files, or PEM itself"
    )
    threshold: int = Field(default=1, ge=1, description="how many of them must have signed")


class Policy(Model):
    """What a platform allows. With several policies, each of them must allow it."""

    allow_sources: tuple[str, ...] | None = Field(
        default=None, description="globs over normalised URLs"
    )
    allow_bases: tuple[str, ...] | None = Field(
        default=None, description="globs over normalised URLs of bases"
    )
    allow_credentials: tuple[str, ...] | None = Field(
        default=None,
        description="globs over scheme://host: hosts of a manifest that the user's credentials may "
        "be sent to; only in a policy from outside",
    )
    registries: tuple[AllowedRegistry, ...] | None = Field(
        default=None, description="registries that may be used; none if the list is empty"
    )
    require_signature: RequiredSignatures | None = Field(
        default=None, description="what must be signed in every registry, and by whom"
    )
    require_model_signature: RequiredModelSignature | None = Field(
        default=None, description="every adapter has a model.sig by these keys, wherever it is from"
    )
    require_digest: bool = Field(
        default=False, description="every adapter has a sha256, here or in the lock"
    )
    max_adapter_bytes: ByteSize | None = Field(
        default=None, description="limit of one adapter's files, such as 2GiB"
    )
    allow_keys: Mapping[Name, tuple[str, ...]] | None = Field(
        default=None,
        description="by the name of an API key: globs over the adapters that it may use, when "
        "served by `adapterdock serve`; a key that is not listed may use none",
    )


class Manifest(Model):
    """A complete manifest."""

    version: Literal[1] = Field(description="version of the language")
    name: Name | None = Field(default=None, description="for people")
    description: str | None = Field(default=None, description="for people")
    base: Base = Field(
        default_factory=lambda: Base(), description="the model that the adapters are for"
    )
    adapters: Mapping[Name, Adapter] = Field(
        default_factory=FrozenDict, description="the adapters, by name"
    )
    registries: Mapping[Name, Source] = Field(
        default_factory=FrozenDict, description="name: URL of a registry"
    )
    mirrors: Mapping[UrlPrefix, str] = Field(
        default_factory=FrozenDict, description="URL prefix: what it is rewritten to when fetched"
    )
    compositions: Mapping[Name, Composition] = Field(
        default_factory=FrozenDict, description="several adapters that act as one, by name"
    )
    rules: Rules = Field(
        default_factory=lambda: Rules(), description="hold for every set of active adapters"
    )
    policy: Policy = Field(
        default_factory=lambda: Policy(),
        description="what may be used; all policies in force apply",
    )
    residency: ByteSize | None = Field(
        default=None, description="limit of adapter weights on the model's device"
    )
    active: Name | tuple[Name, ...] | None = Field(
        default=None, description="what is active after loading: adapters, or one composition"
    )


_BYTES = TypeAdapter(pydantic.ByteSize)


def parse_bytes(text: str) -> int:
    """Bytes in ``"2GiB"``, ``"500MB"``, ``"10 B"`` (powers of 1024 with an ``i``, else of 1000)."""
    return int(_BYTES.validate_python(text))
