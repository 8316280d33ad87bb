"""Codes AD9xx: commands and calls with arguments that have no meaning."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NO_SUCH_FILE = Code(
    "AD901",
    "no-such-manifest",
    Severity.ERROR,
    "There is no such manifest.",
    "check the path, or start one with `adapterdock init`",
)
UNKNOWN_CODE = Code(
    "AD902",
    "unknown-code",
    Severity.ERROR,
    "No finding has this code.",
    "run `adapterdock explain` without a code for the list",
)
NEEDS_TORCH = Code(
    "AD903",
    "needs-torch",
    Severity.ERROR,
    "This needs torch and transformers, which are not installed.",
    "pip install 'adapterdock[torch]'",
)
NEEDS_BASE = Code(
    "AD904",
    "no-base-declared",
    Severity.ERROR,
    "The manifest declares no base model to load.",
    "add `base: {model: ...}`, pass --model, or call adapterdock.attach(model, manifest)",
)
NO_PROMPT = Code(
    "AD905",
    "no-prompt",
    Severity.ERROR,
    "There is nothing to answer.",
    "pass --prompt 'your text', or pipe it in",
)
BAD_SIZE = Code(
    "AD906",
    "bad-size",
    Severity.ERROR,
    "This is no number of bytes.",
    "write a size such as 500MB, 10GiB or 0B",
)
EXISTS = Code(
    "AD907",
    "file-exists",
    Severity.ERROR,
    "The file is there already and is not overwritten.",
    "name another file: adapterdock init team.yaml",
)
NOTHING_TO_FINGERPRINT = Code(
    "AD908",
    "nothing-to-fingerprint",
    Severity.ERROR,
    "There is no base to fingerprint.",
    "declare base.model in the manifest, or name a source such as ./model or hf://org/name",
)
UNWRITABLE = Code(
    "AD909",
    "unwritable",
    Severity.ERROR,
    "Something cannot be written where it was asked for.",
    "name a path in a folder that you can write to, with room on its disk",
)
GIVEN_UNDECLARED = Code(
    "AD910",
    "given-undeclared",
    Severity.ERROR,
    "An adapter was handed over in memory under a name that the manifest does not declare.",
    "declare the adapter in the manifest, or use model.load_adapter for one that is not in it",
)
ONE_SOURCE = Code(
    "AD911",
    "one-source",
    Severity.ERROR,
    "load_adapter was given no adapter, or two.",
    "pass a source such as './tone', or both peft_config= and adapter_state_dict=",
)
BAD_NAME = Code(
    "AD912",
    "bad-adapter-name",
    Severity.ERROR,
    "This cannot be an adapter's name.",
    "choose a name such as 'my-tone'",
)
BAD_DTYPE = Code(
    "AD913",
    "bad-dtype",
    Severity.ERROR,
    "This is no dtype for an adapter.",
    "pass dtype='float32', 'float16' or 'bfloat16', or leave it out",
)
OPTIONS_CONFLICT = Code(
    "AD914",
    "options-conflict",
    Severity.ERROR,
    "These options contradict each other.",
    "leave one of them out, or run the command twice",
)
NOT_YAML = Code(
    "AD915",
    "manifest-not-yaml",
    Severity.ERROR,
    "A manifest's file name ends in .yaml or .yml.",
    "give it the ending: adapterdock init team.yaml",
)
BAD_MODEL = Code(
    "AD916",
    "bad-model-option",
    Severity.ERROR,
    "What --model names is no source.",
    "write hf://org/name for a model on the Hub, ./folder for one that is here",
)
OVERRIDE_TOO_LATE = Code(
    "AD919",
    "override-too-late",
    Severity.ERROR,
    "model= or dtype= cannot be applied to a manifest that was read already.",
    "pass the path of the manifest, or pass model= and dtype= to read_manifest",
)
OUT_NOT_EMPTY = Code(
    "AD930",
    "out-not-empty",
    Severity.ERROR,
    "The folder to write into holds something else.",
    "name a folder that is not there yet, or remove this one yourself",
)
BAD_INTERVAL = Code(
    "AD940",
    "bad-interval",
    Severity.ERROR,
    "The interval of watch is not a number of seconds above 0.",
    "leave interval out (2 seconds), or give a number of seconds",
)
LAZY_TRAINABLE = Code(
    "AD941",
    "lazy-and-trainable",
    Severity.ERROR,
    "An adapter is both lazy and trainable.",
    "remove `lazy` from it",
)
BAD_RESIDENCY = Code(
    "AD942",
    "bad-residency",
    Severity.ERROR,
    "The residency budget is not a number of bytes.",
    "write residency='2GiB', '500MB' or 500_000_000",
)
BUG = Code(
    "AD990",
    "bug",
    Severity.ERROR,
    "adapterdock itself failed.",
    "please report it, with what `ADAPTERDOCK_DEBUG=1 adapterdock ...` prints and the manifest",
)
