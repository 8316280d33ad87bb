"""Codes AD25x: what an opened source must hold to be an adapter or a base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_AN_ADAPTER = Code(
    "AD251",
    "not-an-adapter",
    Severity.ERROR,
    "The source holds no adapter.",
    "An adapter is a folder with adapter_config.json and adapter_model.safetensors, as PEFT's "
    "save_pretrained writes. PEFT puts an adapter that is not named `default` one folder deeper.",
    "source: ./output   # where ./output/tone/adapter_config.json is",
    "point the source at the folder that holds adapter_config.json",
)
PICKLE_REFUSED = Code(
    "AD252",
    "pickle-refused",
    Severity.ERROR,
    "The weights are a pickle, which can run code when it is read.",
    "adapterdock reads safetensors only. A `.bin`, `.pt` or `.pth` file is never opened.",
    "a folder with adapter_model.bin and no adapter_model.safetensors",
    "convert it where you trust it: load it with PEFT and save_pretrained(dir) again",
)
NOT_A_BASE = Code(
    "AD253",
    "not-a-base",
    Severity.ERROR,
    "The source holds no base model.",
    "A base is a folder with config.json and model.safetensors, or the shards that "
    "model.safetensors.index.json lists.",
    "base: {model: ./adapters/tone}",
    "point base.model at a transformers checkpoint in safetensors",
)
BASE_DAMAGED = Code(
    "AD254",
    "base-damaged",
    Severity.ERROR,
    "A file of the base does not read as what it should be.",
    "config.json and model.safetensors.index.json must be JSON objects, every shard that the "
    "index names must be there, and each tensor must be in the shard that the index says.",
    "an index that names model-00003-of-00003.safetensors where the download stopped at 2",
    "fetch the base again; compare with where it came from",
)
FILE_TOO_LARGE = Code(
    "AD255",
    "file-too-large",
    Severity.ERROR,
    "A small file is far larger than such a file can be.",
    "adapter_config.json, config.json and the index are read whole before anything is checked, so "
    "their size is bounded.",
    "an adapter_config.json of 40 MB",
    "look at the file: it is not what its name says",
)
BASE_HOLDS_ADAPTER = Code(
    "AD256",
    "base-holds-adapter",
    Severity.ERROR,
    "The base's folder also holds an adapter, which transformers would attach by itself.",
    "transformers' from_pretrained attaches the adapter_config.json that it finds in a base's "
    "folder. Then the base would not be the base.",
    "base: {model: ./model}   # with ./model/adapter_config.json",
    "move the adapter into a folder of its own and declare it under adapters",
)
SOURCE_UNREACHABLE = Code(
    "AD257",
    "source-unreachable",
    Severity.UNCHECKED,
    "The source could not be reached, so nothing of it was checked.",
    "Not reachable is not the same as wrong, and not a pass either: the verdict is `unchecked` "
    "(exit status 3). The cause is in the message.",
    "adapterdock validate adapters.yaml --offline   # with an adapter on S3",
    "try again with the network, or check the URL and the credentials",
)
TOKENIZER_DAMAGED = Code(
    "AD258",
    "tokenizer-damaged",
    Severity.ERROR,
    "A tokenizer's file does not read as what its name says.",
    "tokenizer.json, tokenizer_config.json, added_tokens.json and vocab.json are JSON. The "
    "vocabulary's size is taken from them, and compared with the base's embeddings.",
    "a tokenizer.json that was cut off",
    "fetch it again, or remove the tokenizer from the adapter's folder if it is not needed",
)
BASE_NOT_READ = Code(
    "AD259",
    "base-not-read",
    Severity.UNCHECKED,
    "The base could not be read, so the adapter was checked by itself only.",
    "Whether an adapter fits is decided against its base's config and headers. Another finding "
    "says why they could not be read; as long as they cannot, nothing is known of fit.",
    "base.model on a bucket that is out of reach, and adapters in local folders",
    "see what is said of base.model first",
)
