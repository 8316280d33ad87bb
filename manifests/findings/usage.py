"""Codes AD9xx: called in a way that cannot mean anything."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NO_SUCH_FILE = Code(
    "AD901",
    "no-such-manifest",
    Severity.ERROR,
    "There is no such manifest.",
    "The command looks for the file that it was given, or for adapters.yaml in this folder. A "
    "manifest is always a file: its lock lies beside it, and relative sources count from its "
    "folder.",
    "adapterdock validate adaptors.yaml",
    "check the path, or start one with `adapterdock init`",
)
UNKNOWN_CODE = Code(
    "AD902",
    "unknown-code",
    Severity.ERROR,
    "No finding has this code.",
    "`adapterdock explain` takes a code such as AD301, or its name such as module-not-in-base.",
    "adapterdock explain AD000",
    "run `adapterdock explain` without a code for the list",
)
NEEDS_TORCH = Code(
    "AD903",
    "needs-torch",
    Severity.ERROR,
    "This needs torch and transformers, which are not installed.",
    "Validating, locking and pulling work without torch; loading and running a model do not.",
    "adapterdock run adapters.yaml   # after `pip install adapterdock`",
    "pip install 'adapterdock[torch]'",
)
NEEDS_BASE = Code(
    "AD904",
    "no-base-declared",
    Severity.ERROR,
    "The manifest declares no base model to load.",
    "`base: {}` is for `adapterdock.attach`, where the caller brings a loaded model.",
    "adapterdock run adapters.yaml   # with `base: {}`",
    "add `base: {model: ...}`, pass --model, or call adapterdock.attach(model, manifest)",
)
NO_PROMPT = Code(
    "AD905",
    "no-prompt",
    Severity.ERROR,
    "There is nothing to answer.",
    "`run` takes its prompt from --prompt or from standard input.",
    "adapterdock run adapters.yaml < /dev/null",
    "pass --prompt 'your text', or pipe it in",
)
BAD_SIZE = Code(
    "AD906",
    "bad-size",
    Severity.ERROR,
    "This is no number of bytes.",
    "A size is a number and a unit: B; KB, MB, GB, TB (thousands); KiB, MiB, GiB, TiB (1024s).",
    "adapterdock cache gc --max-size lots",
    "write a size such as 500MB, 10GiB or 0B",
)
GIVEN_UNDECLARED = Code(
    "AD910",
    "given-undeclared",
    Severity.ERROR,
    "An adapter was handed over in memory under a name that the manifest does not declare.",
    "`sources=` takes the place of what a declared adapter's source holds; names, dtypes, rules "
    "and compositions still come from the manifest.",
    "adapterdock.load('adapters.yaml', sources={'tnoe': files})",
    "declare the adapter in the manifest, or use model.load_adapter for one that is not in it",
)
EXISTS = Code(
    "AD907",
    "file-exists",
    Severity.ERROR,
    "The file is there already and is not overwritten.",
    "`init` writes a new manifest; it never replaces one.",
    "adapterdock init   # where adapters.yaml exists",
    "name another file: adapterdock init team.yaml",
)
NOTHING_TO_FINGERPRINT = Code(
    "AD908",
    "nothing-to-fingerprint",
    Severity.ERROR,
    "There is no base to fingerprint.",
    "`fingerprint` reads the base that the manifest declares, or the source that it is given.",
    "adapterdock fingerprint adapters.yaml   # with `base: {}`",
    "declare base.model in the manifest, or name a source such as ./model or hf://org/name",
)
UNWRITABLE = Code(
    "AD909",
    "unwritable",
    Severity.ERROR,
    "Something cannot be written where it was asked for.",
    "The folder may be read-only, or not a folder; the disk may be full.",
    "adapterdock init /proc/adapters.yaml",
    "name a path in a folder that you can write to, with room on its disk",
)
ONE_SOURCE = Code(
    "AD911",
    "one-source",
    Severity.ERROR,
    "load_adapter was given no adapter, or two.",
    "Either a source is named, or an adapter is handed over in memory by peft_config and "
    "adapter_state_dict together.",
    "model.load_adapter(None, 'tone')",
    "pass a source such as './tone', or both peft_config= and adapter_state_dict=",
)
BAD_NAME = Code(
    "AD912",
    "bad-adapter-name",
    Severity.ERROR,
    "This cannot be an adapter's name.",
    "A name is a letter, then up to 62 of A-Z a-z 0-9 . _ -, and does not start with `x-`.",
    "model.load_adapter('./tone', 'My Tone')",
    "choose a name such as 'my-tone'",
)
BAD_DTYPE = Code(
    "AD913",
    "bad-dtype",
    Severity.ERROR,
    "This is no dtype for an adapter.",
    "Adapters are kept in float32, float16 or bfloat16.",
    "model.load_adapter('./tone', 'tone', dtype='int8')",
    "pass dtype='float32', 'float16' or 'bfloat16', or leave it out",
)
OPTIONS_CONFLICT = Code(
    "AD914",
    "options-conflict",
    Severity.ERROR,
    "These options contradict each other.",
    "An option that could have no effect beside another is refused, not ignored: `lock --check` "
    "only looks, so nothing can be upgraded or accepted by it.",
    "adapterdock lock --check --upgrade tone",
    "leave one of them out, or run the command twice",
)
NOT_YAML = Code(
    "AD915",
    "manifest-not-yaml",
    Severity.ERROR,
    "A manifest's file name ends in .yaml or .yml.",
    "The lock of NAME.yaml is NAME.lock, beside it; editors know the language by the ending too.",
    "adapterdock init team",
    "give it the ending: adapterdock init team.yaml",
)
BAD_MODEL = Code(
    "AD916",
    "bad-model-option",
    Severity.ERROR,
    "What --model names is no source.",
    "The base model is a folder (./model, /models/m), a Hub id (hf://org/name@revision) or a URL "
    "(s3://bucket/folder, https://host/folder). A bare org/name is ambiguous.",
    "adapterdock init --model HuggingFaceTB/SmolLM2-135M-Instruct",
    "write hf://org/name for a model on the Hub, ./folder for one that is here",
)
OUT_NOT_EMPTY = Code(
    "AD930",
    "out-not-empty",
    Severity.ERROR,
    "The folder to write into holds something else.",
    "`merge` writes a new folder. One that is there is replaced only if it is empty, or holds a "
    "merged model and nothing beside it: the header of its weights says whether it was written by "
    "`merge`.",
    "adapterdock merge --out ~",
    "name a folder that is not there yet, or remove this one yourself",
)
BUG = Code(
    "AD990",
    "bug",
    Severity.ERROR,
    "adapterdock itself failed.",
    "No input should lead here: whatever you gave, the answer should have been a finding that "
    "says what is wrong with it. The exit status is 70. Nothing was left half-done: files are "
    "published by rename only.",
    "a traceback that ADAPTERDOCK_DEBUG=1 shows",
    "please report it, with what `ADAPTERDOCK_DEBUG=1 adapterdock ...` prints and the manifest",
)
OVERRIDE_TOO_LATE = Code(
    "AD919",
    "override-too-late",
    Severity.ERROR,
    "model= or dtype= cannot be applied to a manifest that was read already.",
    "They are part of what a manifest resolves to, so they are given when it is read.",
    "adapterdock.load(read_manifest('adapters.yaml'), dtype='float32')",
    "pass the path of the manifest, or pass model= and dtype= to read_manifest",
)
BAD_INTERVAL = Code(
    "AD940",
    "bad-interval",
    Severity.ERROR,
    "The interval of watch is not a number of seconds above 0.",
    "The files are looked at once in this time; looking without a pause would keep a core busy.",
    "model.watch('adapters.yaml', interval=0)",
    "leave interval out (2 seconds), or give a number of seconds",
)
LAZY_TRAINABLE = Code(
    "AD941",
    "lazy-and-trainable",
    Severity.ERROR,
    "An adapter is both lazy and trainable.",
    "A lazy adapter's weights are read when it is first used. An optimiser is given a trainable "
    "one's parameters before that, and would train nothing.",
    "tone: {source: ./tone, trainable: true, lazy: true}",
    "remove `lazy` from it",
)
BAD_RESIDENCY = Code(
    "AD942",
    "bad-residency",
    Severity.ERROR,
    "The residency budget is not a number of bytes.",
    "It is written as in a manifest, or given as a whole number of bytes.",
    "adapterdock.load('adapters.yaml', residency='plenty')",
    "write residency='2GiB', '500MB' or 500_000_000",
)
