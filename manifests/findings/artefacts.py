"""Codes AD25x: what the files of a source must be to make an adapter or a base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_AN_ADAPTER = Code(
    "AD251",
    "not-an-adapter",
    Severity.ERROR,
    "The source does not contain an adapter.",
    "Name the folder that contains adapter_config.json.",
)
PICKLE_REFUSED = Code(
    "AD252",
    "pickle-refused",
    Severity.ERROR,
    "The weights are a pickle, which can run code when it is read.",
    "Convert it on a machine where you trust it: load it with PEFT and call save_pretrained(dir).",
)
NOT_A_BASE = Code(
    "AD253",
    "not-a-base",
    Severity.ERROR,
    "The source does not contain a base model.",
    "Point base.model at a transformers checkpoint in safetensors.",
)
BASE_DAMAGED = Code(
    "AD254",
    "base-damaged",
    Severity.ERROR,
    "A file of the base is damaged.",
    "Fetch the base again, and compare it with its source.",
)
FILE_TOO_LARGE = Code(
    "AD255",
    "file-too-large",
    Severity.ERROR,
    "A small file is much larger than such a file can be.",
    "Look into the file. It is probably something else than its name says.",
)
BASE_HOLDS_ADAPTER = Code(
    "AD256",
    "base-holds-adapter",
    Severity.ERROR,
    "The base's folder also contains an adapter, which transformers would attach.",
    "Move the adapter into its own folder and declare it under adapters.",
)
SOURCE_UNREACHABLE = Code(
    "AD257",
    "source-unreachable",
    Severity.UNCHECKED,
    "The source could not be reached, so it was not checked.",
    "Try again with the network, or check the URL and the credentials.",
)
TOKENIZER_DAMAGED = Code(
    "AD258",
    "tokenizer-damaged",
    Severity.ERROR,
    "A tokenizer's file is damaged.",
    "Fetch it again, or remove the tokenizer from the adapter's folder if it is not needed.",
)
BASE_NOT_READ = Code(
    "AD259",
    "base-not-read",
    Severity.UNCHECKED,
    "The base could not be read, so the adapter was checked without a base model.",
    "See the finding about base.model first.",
)
