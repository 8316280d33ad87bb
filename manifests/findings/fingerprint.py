"""Codes AD4xx: whether a base is the one that a manifest or a lock names."""

from __future__ import annotations

from .code import Code
from .finding import Severity

ARCHITECTURE = Code(
    "AD401",
    "base-architecture-differs",
    Severity.ERROR,
    "The base is a model of another architecture.",
    "name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEAD = Code(
    "AD402",
    "base-head-differs",
    Severity.WARNING,
    "The same backbone, under another head.",
    "nothing, if that is what you want",
)
HIDDEN_SIZE = Code(
    "AD403",
    "base-hidden-size-differs",
    Severity.ERROR,
    "The base has another hidden size.",
    "name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
STRUCTURE = Code(
    "AD404",
    "base-structure-differs",
    Severity.ERROR,
    "The base's tensors have other names or shapes.",
    "name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEADS = Code(
    "AD405",
    "base-heads-differ",
    Severity.ERROR,
    "The base is of the declared class, and its head has other names or shapes.",
    "name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
CONFIG = Code(
    "AD406",
    "base-config-differs",
    Severity.ERROR,
    "The base's config differs in a field that changes what it computes.",
    "compare the two config.json files; name the right base, or write its fingerprint anew",
)
WEIGHTS = Code(
    "AD407",
    "base-weights-differ",
    Severity.ERROR,
    "The base has the declared shapes and other weights.",
    "name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEAD_WEIGHTS = Code(
    "AD408",
    "base-head-weights-differ",
    Severity.ERROR,
    "The backbone's weights are as declared, the head's are not.",
    "load the class that the base was saved with, or write the fingerprint anew",
)
TOKENIZER = Code(
    "AD409",
    "base-tokenizer-differs",
    Severity.ERROR,
    "The tokenizer is not the declared one.",
    "use the base's own tokenizer, or write the fingerprint anew",
)
CHAT_TEMPLATE = Code(
    "AD410",
    "base-chat-template-differs",
    Severity.WARNING,
    "The chat template is not the declared one.",
    "restore the template, or write the fingerprint anew",
)
SAMPLES = Code(
    "AD411",
    "sample-table-not-its-own",
    Severity.ERROR,
    "The sample table does not belong to the fingerprint beside it.",
    "lock the base again with `adapterdock lock --upgrade base`",
)
TOKENIZER_FILE = Code(
    "AD412",
    "tokenizer-file-malformed",
    Severity.ERROR,
    "A file of the base's tokenizer is not what its name says.",
    "fetch the base's tokenizer files again",
)
ARCHITECTURE_UNCHECKED = Code(
    "AD431",
    "base-architecture-unchecked",
    Severity.UNCHECKED,
    "The architecture or hidden size of the base is not known.",
    "leave that level out of the fingerprint, or accept this code",
)
STRUCTURE_UNCHECKED = Code(
    "AD432",
    "base-structure-unchecked",
    Severity.UNCHECKED,
    "Whether the base has the declared tensors could not be told.",
    "check the base's files instead (`adapterdock validate`), or accept this code",
)
CONFIG_UNCHECKED = Code(
    "AD433",
    "base-config-unchecked",
    Severity.UNCHECKED,
    "The config digests differ, and that need not mean that the configs do.",
    "compare the two config.json files, then write the fingerprint anew or accept this code",
)
WEIGHTS_UNCHECKED = Code(
    "AD434",
    "base-weights-unchecked",
    Severity.UNCHECKED,
    "Whether the base has the declared weights could not be told.",
    "lock the base: with the lock's sample table each readable tensor is compared by itself",
)
WEIGHTS_PARTLY = Code(
    "AD435",
    "base-weights-partly-checked",
    Severity.UNCHECKED,
    "Every tensor that could be read has the declared weights; not all could be read.",
    "accept this code if the base comes from a pinned source",
)
TOKENIZER_UNCHECKED = Code(
    "AD436",
    "base-tokenizer-unchecked",
    Severity.UNCHECKED,
    "The fingerprint declares a tokenizer, and there is none to compare.",
    "leave `tokenizer` out of the fingerprint, or accept this code",
)
