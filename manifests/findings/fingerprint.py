"""Codes AD4xx: whether a base is the one that a manifest or a lock names."""

from __future__ import annotations

from .code import Code
from .finding import Severity

ARCHITECTURE = Code(
    "AD401",
    "base-architecture-differs",
    Severity.ERROR,
    "The base has another architecture than the fingerprint declares.",
    "Use the right base, or write its fingerprint with `adapterdock fingerprint --write`.",
)
HEAD = Code(
    "AD402",
    "base-head-differs",
    Severity.WARNING,
    "The base has the same backbone with another head.",
    "No action is needed if you want this head.",
)
HIDDEN_SIZE = Code(
    "AD403",
    "base-hidden-size-differs",
    Severity.ERROR,
    "The base has another hidden size.",
    "Use the right base, or write its fingerprint with `adapterdock fingerprint --write`.",
)
STRUCTURE = Code(
    "AD404",
    "base-structure-differs",
    Severity.ERROR,
    "The base's tensors have other names or shapes than the fingerprint declares.",
    "Use the right base, or write its fingerprint with `adapterdock fingerprint --write`.",
)
HEADS = Code(
    "AD405",
    "base-heads-differ",
    Severity.ERROR,
    "The base has the declared class, but its head has other names or shapes.",
    "Use the right base, or write its fingerprint with `adapterdock fingerprint --write`.",
)
CONFIG = Code(
    "AD406",
    "base-config-differs",
    Severity.ERROR,
    "The base's config differs in a field that changes what it computes.",
    "Compare the two config.json files. Then use the right base, or write a new fingerprint.",
)
WEIGHTS = Code(
    "AD407",
    "base-weights-differ",
    Severity.ERROR,
    "The base has the declared shapes but other weights.",
    "Use the right base, or write its fingerprint with `adapterdock fingerprint --write`.",
)
HEAD_WEIGHTS = Code(
    "AD408",
    "base-head-weights-differ",
    Severity.ERROR,
    "The backbone's weights are as declared, but the head's are not.",
    "Load the class that the base was saved with, or write a new fingerprint.",
)
TOKENIZER = Code(
    "AD409",
    "base-tokenizer-differs",
    Severity.ERROR,
    "The tokenizer is not the declared one.",
    "Use the base's own tokenizer, or write a new fingerprint.",
)
CHAT_TEMPLATE = Code(
    "AD410",
    "base-chat-template-differs",
    Severity.WARNING,
    "The chat template is not the declared one.",
    "Restore the template, or write a new fingerprint.",
)
SAMPLES = Code(
    "AD411",
    "sample-table-not-its-own",
    Severity.ERROR,
    "The sample table does not belong to its fingerprint.",
    "Lock the base again with `adapterdock lock --upgrade base`.",
)
TOKENIZER_FILE = Code(
    "AD412",
    "tokenizer-file-malformed",
    Severity.ERROR,
    "A file of the base's tokenizer is damaged.",
    "Fetch the base's tokenizer files again.",
)
ARCHITECTURE_UNCHECKED = Code(
    "AD431",
    "base-architecture-unchecked",
    Severity.UNCHECKED,
    "The architecture or hidden size of the base is not known.",
    "Leave this level out of the fingerprint, or accept this code.",
)
STRUCTURE_UNCHECKED = Code(
    "AD432",
    "base-structure-unchecked",
    Severity.UNCHECKED,
    "Cannot verify that the base has the declared tensors.",
    "Check the base's files instead (`adapterdock validate`), or accept this code.",
)
CONFIG_UNCHECKED = Code(
    "AD433",
    "base-config-unchecked",
    Severity.UNCHECKED,
    "The config digests differ, which does not prove that the configs do.",
    "Compare the two config.json files, then write a new fingerprint or accept this code.",
)
WEIGHTS_UNCHECKED = Code(
    "AD434",
    "base-weights-unchecked",
    Severity.UNCHECKED,
    "Cannot verify that the base has the declared weights.",
    "Lock the base. With the lock's sample table each readable tensor is compared by itself.",
)
WEIGHTS_PARTLY = Code(
    "AD435",
    "base-weights-partly-checked",
    Severity.UNCHECKED,
    "Every tensor that could be read has the declared weights, but not all could be read.",
    "Accept this code if the base comes from a pinned source.",
)
TOKENIZER_UNCHECKED = Code(
    "AD436",
    "base-tokenizer-unchecked",
    Severity.UNCHECKED,
    "The fingerprint declares a tokenizer, and there is none to compare with.",
    "Leave `tokenizer` out of the fingerprint, or accept this code.",
)
