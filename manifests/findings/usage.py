"""Codes AD9xx: commands and calls with arguments that have no meaning."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NO_SUCH_FILE = Code(
    "AD901",
    "no-such-manifest",
    Severity.ERROR,
    "The manifest does not exist.",
    "Check the path, or create a manifest with `adapterdock init`.",
)
UNKNOWN_CODE = Code(
    "AD902",
    "unknown-code",
    Severity.ERROR,
    "Unknown code.",
    "Run `adapterdock explain` without a code for the list.",
)
NEEDS_TORCH = Code(
    "AD903",
    "needs-torch",
    Severity.ERROR,
    "This needs torch and transformers, which are not installed.",
    "Run `pip install 'adapterdock[torch]'`.",
)
NEEDS_BASE = Code(
    "AD904",
    "no-base-declared",
    Severity.ERROR,
    "The manifest declares no base model to load.",
    "Add `base: {model: ...}`, pass --model, or call adapterdock.attach(model, manifest).",
)
NO_PROMPT = Code(
    "AD905",
    "no-prompt",
    Severity.ERROR,
    "There is no prompt.",
    "Pass --prompt 'your text', or pipe it in.",
)
BAD_SIZE = Code(
    "AD906",
    "bad-size",
    Severity.ERROR,
    "Invalid size.",
    "Write a size such as 500MB, 10GiB or 0B.",
)
EXISTS = Code(
    "AD907",
    "file-exists",
    Severity.ERROR,
    "The file already exists and is not overwritten.",
    "Name another file: `adapterdock init team.yaml`.",
)
NOTHING_TO_FINGERPRINT = Code(
    "AD908",
    "nothing-to-fingerprint",
    Severity.ERROR,
    "There is no base to fingerprint.",
    "Declare base.model in the manifest, or name a source such as ./model or hf://org/name.",
)
UNWRITABLE = Code(
    "AD909",
    "unwritable",
    Severity.ERROR,
    "Cannot write the output.",
    "Name a path in a folder that you can write to, on a disk with free space.",
)
GIVEN_UNDECLARED = Code(
    "AD910",
    "given-undeclared",
    Severity.ERROR,
    "An adapter in memory has a name that the manifest does not declare.",
    "Declare the adapter in the manifest, or use model.load_adapter for one that is not in it.",
)
ONE_SOURCE = Code(
    "AD911",
    "one-source",
    Severity.ERROR,
    "load_adapter needs exactly one adapter.",
    "Pass a source such as './tone', or both peft_config= and adapter_state_dict=.",
)
BAD_DTYPE = Code(
    "AD913",
    "bad-dtype",
    Severity.ERROR,
    "Invalid dtype for an adapter.",
    "Pass dtype='float32', 'float16' or 'bfloat16', or leave it out.",
)
OPTIONS_CONFLICT = Code(
    "AD914",
    "options-conflict",
    Severity.ERROR,
    "These options contradict each other.",
    "Leave one of them out, or run the command twice.",
)
NOT_YAML = Code(
    "AD915",
    "manifest-not-yaml",
    Severity.ERROR,
    "The manifest's file name must end in .yaml or .yml.",
    "Give it the ending: `adapterdock init team.yaml`.",
)
BAD_MODEL = Code(
    "AD916",
    "bad-model-option",
    Severity.ERROR,
    "Invalid source in --model.",
    "Write hf://org/name for a model on the Hub, ./folder for a local one.",
)
OVERRIDE_TOO_LATE = Code(
    "AD919",
    "override-too-late",
    Severity.ERROR,
    "model= or dtype= cannot be applied to a manifest that was already read.",
    "Pass the path of the manifest, or pass model= and dtype= to read_manifest.",
)
OUT_NOT_EMPTY = Code(
    "AD930",
    "out-not-empty",
    Severity.ERROR,
    "The output folder contains other files.",
    "Name a folder that does not exist, or remove this one yourself.",
)
BAD_INTERVAL = Code(
    "AD940",
    "bad-interval",
    Severity.ERROR,
    "Invalid interval for watch: it must be a number of seconds above 0.",
    "Leave out interval (2 seconds), or pass a number of seconds.",
)
LAZY_TRAINABLE = Code(
    "AD941",
    "lazy-and-trainable",
    Severity.ERROR,
    "An adapter is both lazy and trainable.",
    "Remove `lazy`.",
)
BAD_RESIDENCY = Code(
    "AD942",
    "bad-residency",
    Severity.ERROR,
    "Invalid residency budget: it must be a number of bytes.",
    "Write residency='2GiB', '500MB' or 500_000_000.",
)
BUG = Code(
    "AD990",
    "bug",
    Severity.ERROR,
    "Internal error in adapterdock.",
    "Report it, with the manifest and the output of `ADAPTERDOCK_DEBUG=1 adapterdock ...`.",
)
