"""Codes AD25x: what the files of a source must be to make an adapter or a base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_AN_ADAPTER = Code(
    "AD251",
    "not-an-adapter",
    Severity.ERROR,
    "The source holds no adapter.",
    "point the source at the folder that holds adapter_config.json",
)
PICKLE_REFUSED = Code(
    "AD252",
    "pickle-refused",
    Severity.ERROR,
    "The weights are a pickle, which can run code when it is read.",
    "convert it where you trust it: load it with PEFT and save_pretrained(dir) again",
)
NOT_A_BASE = Code(
    "AD253",
    "not-a-base",
    Severity.ERROR,
    "The source holds no base model.",
    "point base.model at a transformers checkpoint in safetensors",
)
BASE_DAMAGED = Code(
    "AD254",
    "base-damaged",
    Severity.ERROR,
    "A file of the base does not read as what it should be.",
    "fetch the base again; compare with where it came from",
)
FILE_TOO_LARGE = Code(
    "AD255",
    "file-too-large",
    Severity.ERROR,
    "A small file is far larger than such a file can be.",
    "look at the file: it is not what its name says",
)
BASE_HOLDS_ADAPTER = Code(
    "AD256",
    "base-holds-adapter",
    Severity.ERROR,
    "The base's folder also holds an adapter, which transformers would attach by itself.",
    "move the adapter into a folder of its own and declare it under adapters",
)
SOURCE_UNREACHABLE = Code(
    "AD257",
    "source-unreachable",
    Severity.UNCHECKED,
    "The source could not be reached, so nothing of it was checked.",
    "try again with the network, or check the URL and the credentials",
)
TOKENIZER_DAMAGED = Code(
    "AD258",
    "tokenizer-damaged",
    Severity.ERROR,
    "A tokenizer's file does not read as what its name says.",
    "fetch it again, or remove the tokenizer from the adapter's folder if it is not needed",
)
BASE_NOT_READ = Code(
    "AD259",
    "base-not-read",
    Severity.UNCHECKED,
    "The base could not be read, so the adapter was checked by itself only.",
    "see what is said of base.model first",
)
