"""Codes AD1xx: the manifest's language."""

from __future__ import annotations

from .code import Code
from .finding import Severity

# --- reading the file ---------------------------------------------------------------------------

UNREADABLE = Code(
    "AD101",
    "manifest-unreadable",
    Severity.ERROR,
    "The file could not be read.",
    "The manifest, or a policy file, does not exist, is a folder, or may not be read by this user.",
    "adapterdock validate adaptors.yaml   # the file is called adapters.yaml",
    "Check the path (it counts from the current folder) and the file's permissions.",
)
TOO_LARGE = Code(
    "AD102",
    "manifest-too-large",
    Severity.ERROR,
    "The file is larger than a manifest may be (1 MiB).",
    "A manifest is read whole before anything in it is trusted, so its size is bounded. A real "
    "catalogue of two thousand adapters fits. A larger file is usually not a manifest at all "
    "(a tokenizer, an index, a log).",
    "adapterdock validate tokenizer.json",
    "Give the manifest itself; split a very large catalogue into several manifests.",
)
NOT_UTF8 = Code(
    "AD103",
    "not-utf8",
    Severity.ERROR,
    "The file is not UTF-8 text.",
    "Manifests are UTF-8 (a byte order mark is allowed). UTF-16, Latin-1 and binary files are "
    "refused, because guessing an encoding could change a name or a path.",
    "a manifest saved by Notepad as 'Unicode' (UTF-16)",
    "Save the file as UTF-8.",
)
YAML_SYNTAX = Code(
    "AD104",
    "yaml-syntax",
    Severity.ERROR,
    "The file is not valid YAML.",
    "The YAML reader stopped at this place: most often a tab, an indentation that does not line "
    "up, a quote or bracket that is not closed, or text that holds ': ' or '#' without quotes.",
    "adapters:\n\ttone: {source: ./tone}      # a tab before tone",
    "Look at the line named and the one above it; quote text that holds ': ' or starts with one "
    "of @ ` % & * ! | > [ {.",
)
EMPTY = Code(
    "AD105",
    "manifest-empty",
    Severity.ERROR,
    "The file holds nothing.",
    "There is no key in the file, only blank lines or comments. An empty manifest would attach "
    "nothing, silently.",
    "# adapters go here",
    "Start with `version: 1`; `adapterdock init` writes a manifest to begin from.",
)
SEVERAL_DOCUMENTS = Code(
    "AD106",
    "several-documents",
    Severity.ERROR,
    "The file holds more than one YAML document.",
    "A manifest is one document. What follows a second `---` would be ignored by most readers, "
    "so it is refused.",
    "version: 1\n---\nversion: 1",
    "Keep one document a file; use `extends` to build one manifest upon another.",
)
TOO_DEEP = Code(
    "AD107",
    "nested-too-deep",
    Severity.ERROR,
    "Mappings or lists are nested too deep (more than 32 levels).",
    "Nothing in a manifest needs such depth; a file that has it is damaged or hostile.",
    "x: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "Flatten the value at the place named.",
)
TOO_MANY_NODES = Code(
    "AD108",
    "too-many-nodes",
    Severity.ERROR,
    "The file holds too many values (more than 100,000), aliases counted in full.",
    "Aliases (`*name`) are ordinary YAML and welcome, but a few lines of them can stand for "
    "billions of values (an alias bomb). The count is made without expanding them.",
    "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]   # and so on",
    "Remove the aliases that multiply one another.",
)
BAD_ALIAS = Code(
    "AD109",
    "bad-alias",
    Severity.ERROR,
    "An alias (`*name`) names no anchor above it, or holds itself.",
    "An alias stands for the value that was marked with `&name` earlier in the same file. Text "
    "that starts with `*`, such as a glob, must be quoted or YAML takes it for an alias.",
    "float32_modules: [*norm*]",
    'Quote text that starts with a star: "*norm*"; else write the anchor before its alias.',
)
CUSTOM_TAG = Code(
    "AD110",
    "tag-not-allowed",
    Severity.ERROR,
    "A YAML tag (`!something`) stands in the file.",
    "Tags ask the reader to build other things than plain data, which is how YAML files run "
    "code. A manifest needs none; only !!str, !!map and !!seq are let through.",
    "active: !!python/object/apply:os.system [id]",
    "Remove the tag; quote text that starts with '!'.",
)
DUPLICATE_KEY = Code(
    "AD111",
    "duplicate-key",
    Severity.ERROR,
    "The same key stands twice in one mapping.",
    "Most YAML readers silently keep the last one, so one of two adapters of the same name "
    "would vanish.",
    "adapters:\n  tone: {source: ./a}\n  tone: {source: ./b}",
    "Rename or remove one of the two.",
)
KEY_NOT_TEXT = Code(
    "AD112",
    "key-not-text",
    Severity.ERROR,
    "A key is not text.",
    "Every key of a manifest is text. A list, a mapping, nothing at all or null cannot be one; "
    "A `{{ template }}` that was left unfilled reads as a mapping used as a key.",
    "? [a, b]\n: 1",
    "Write the key as text, in quotes if need be.",
)
BAD_MERGE = Code(
    "AD113",
    "bad-merge-key",
    Severity.ERROR,
    "`<<` merges something that is not a mapping.",
    "`<<: *name` takes over the keys of another mapping, or of a list of mappings; keys written "
    "beside it win.",
    "tone:\n  <<: just text",
    "Point `<<` to a mapping: `<<: *defaults` after `x-defaults: &defaults {...}`.",
)

# --- schema -------------------------------------------------------------------------------------

UNKNOWN_KEY = Code(
    "AD120",
    "unknown-key",
    Severity.ERROR,
    "The manifest's language has no such key here.",
    "A misspelt key would be silently without effect, so every key must be known. Notes of your "
    "own go under keys that start with `x-`, which are carried and never read.",
    "adapters:\n  tone: {sorce: ./tone}",
    "Correct the spelling, or rename your own data to x-something.",
)
WRONG_TYPE = Code(
    "AD121",
    "wrong-type",
    Severity.ERROR,
    "The value is of another kind than this key takes.",
    "Text, numbers, true or false, lists and mappings are told apart. Only true and false are "
    "booleans (yes, no, on and off are text), and a quoted number is text.",
    'rules: {max_active: "2"}',
    "Write the kind of value that is expected; remove the quotes around a number.",
)
MISSING_KEY = Code(
    "AD122",
    "missing-key",
    Severity.ERROR,
    "A key that is needed is not there.",
    "`version: 1` starts every manifest, every adapter has a `source`, and every composition "
    "says what it is `of`. A key with nothing after it counts as not written.",
    "adapters:\n  tone: {dtype: float32}",
    "Add the key.",
)
NOT_A_CHOICE = Code(
    "AD123",
    "not-a-choice",
    Severity.ERROR,
    "The value is none of those that this key takes.",
    "The key takes one of a few words, listed under 'expected'.",
    "base: {dtype: fp16}",
    "Write one of the words listed.",
)
BAD_NAME = Code(
    "AD124",
    "bad-name",
    Severity.ERROR,
    "This cannot be a name.",
    "Names of manifests, adapters, compositions and registries start with a letter, followed by up "
    "to 62 of A-Z a-z 0-9 . _ -, so that they can stand in files, URLs and command lines "
    "everywhere. A name is always compared whole.",
    "adapters:\n  My Adapter: {source: ./tone}",
    "Choose another name, such as my-adapter.",
)
BAD_VALUE = Code(
    "AD125",
    "bad-value",
    Severity.ERROR,
    "The value is of the right kind but not one that can be meant.",
    "It is out of range, or not written as this key wants it: digests are `sha256:` and 64 "
    "lower-case hexadecimal digits, sizes a number with a unit (500MB, 2GiB).",
    "rules: {max_active: 0}",
    "See what is expected there.",
)
BAD_SOURCE = Code(
    "AD126",
    "bad-source",
    Severity.ERROR,
    "This is no source.",
    "A source is ./folder (counted from the file that says it), /folder, ~/folder, "
    "hf://org/name@revision/folder, registry://registry/name@constraint, or a URL that fsspec "
    "opens, such as s3://bucket/folder. A bare `org/name` is refused because it could be either "
    "a folder or a repository.",
    "adapters:\n  tone: {source: acme/tone-lora}",
    "Write ./ before a folder and hf:// before a Hub repository.",
)
UNKNOWN_VERSION = Code(
    "AD127",
    "unknown-version",
    Severity.ERROR,
    "The manifest is written in a version of the language that is not known here.",
    "`version: 1` is the only version so far. A manifest with a higher number was written for a "
    "newer adapterdock.",
    "version: 2",
    "Write `version: 1`, or install a newer adapterdock.",
)

# --- variables ----------------------------------------------------------------------------------

VARIABLE_UNSET = Code(
    "AD130",
    "variable-unset",
    Severity.ERROR,
    "An environment variable is used that is not set.",
    "`${NAME}` is replaced by the environment variable NAME. One that is not set would leave a "
    "source half written, so it must be set or have a default: `${NAME:-default}` (which also "
    "stands in for an empty NAME).",
    "source: s3://${BUCKET}/tone",
    "Set the variable, or write a default: ${NAME:-default}.",
)
VARIABLE_MISPLACED = Code(
    "AD131",
    "variable-misplaced",
    Severity.ERROR,
    "`${` stands where variables are not expanded.",
    "Variables work in sources, base.model, registries, mirrors, storage_options, dtype and "
    "device_map, and nowhere else: names, rules, weights and digests say the same on every "
    "machine.",
    "name: ${USER}-desk",
    "Write the value itself, or keep one overlay for each environment (`extends`).",
)
VARIABLE_SYNTAX = Code(
    "AD132",
    "variable-syntax",
    Severity.ERROR,
    "A `$` here is no variable that can be read.",
    "Only `${NAME}` and `${NAME:-default}` are variables, where NAME is letters, digits and "
    "underscores. `$$` is a dollar sign. Shell forms such as $NAME, ${NAME:?text} or a variable "
    "within a default are not expanded, and not left as they are either.",
    "source: s3://$BUCKET/tone",
    "Write ${NAME} or ${NAME:-default}; write $$ for a dollar sign.",
)
VARIABLE_SECRET = Code(
    "AD133",
    "variable-secret",
    Severity.ERROR,
    "A variable that holds a secret would be written into the lock.",
    "What variables expand to is locked and shown, so a variable whose name says that it holds a "
    "token, a password or a key is not expanded. Every client library finds its credentials by "
    "itself.",
    "source: https://host/${API_TOKEN}/tone",
    "Leave the credentials in the environment or a profile (HF_TOKEN, AWS_PROFILE, "
    "AWS_ACCESS_KEY_ID ...) and out of the manifest.",
)

# --- overlays -----------------------------------------------------------------------------------

EXTENDS_UNREADABLE = Code(
    "AD140",
    "extends-unreadable",
    Severity.ERROR,
    "The file that this manifest extends could not be read.",
    "`extends` names a local YAML file, counted from the folder of the file that says it. Of a "
    "file that is not a manifest nothing is shown: it may hold secrets.",
    "extends: ../base.yml      # it is called base.yaml",
    "Check the path; it counts from this file's own folder.",
)
EXTENDS_CYCLE = Code(
    "AD141",
    "extends-cycle",
    Severity.ERROR,
    "The manifest extends itself, or the chain of `extends` is too long (more than 16).",
    "Each file may extend one other; following them must come to an end.",
    "a.yaml: extends: b.yaml\nb.yaml: extends: a.yaml",
    "Remove `extends` from one file of the circle.",
)
BAD_EXTENDS = Code(
    "AD142",
    "bad-extends",
    Severity.ERROR,
    "`extends` names one local YAML file, and this is something else.",
    "It takes one path, without variables: no list, and no URL, because a manifest must read the "
    "same without a network. What several files share can be chained.",
    "extends: [base.yaml, gpu.yaml]",
    "Write one path; let that file extend the next.",
)
NOTHING_TO_REMOVE = Code(
    "AD143",
    "nothing-to-remove",
    Severity.ERROR,
    "An overlay removes a name that is not there.",
    "`name: null` in an overlay takes an entry out of what it extends. A name that is not there "
    "is a misspelling, and what was meant would stay in.",
    "extends: base.yaml\nadapters: {biling: null}",
    "Correct the name, or remove the line.",
)

# --- secrets ------------------------------------------------------------------------------------

SECRET = Code(
    "AD150",
    "secret-in-manifest",
    Severity.ERROR,
    "A secret is typed into the file.",
    "Passwords in URLs, signed URLs and access tokens must not stand in a manifest: it is kept "
    "in git, locked, shown and logged. The secret itself is not repeated here. Comments, notes "
    "and descriptions are looked at too.",
    "source: https://me:pass@host/tone   # or hf_..., AKIA..., ghp_... anywhere",
    "Remove it, revoke it if the file was shared, and put credentials where the client looks for "
    "them (HF_TOKEN, AWS_PROFILE, a keyring).",
)
SECRET_OPTION = Code(
    "AD151",
    "secret-storage-option",
    Severity.ERROR,
    "Storage options hold a credential.",
    "Storage options say how to reach a place (endpoint_url, anon, client_kwargs) and are kept in "
    "the lock. Keys that hold credentials (key, secret, token, password ...) are refused, "
    "literal or from a variable.",
    "storage_options: {key: ${AWS_ACCESS_KEY_ID}, secret: ${AWS_SECRET_ACCESS_KEY}}",
    "Remove the key; credentials come from the usual places (environment, profile, keyring) "
    "without being named.",
)

# --- editing ------------------------------------------------------------------------------------

CANNOT_EDIT = Code(
    "AD160",
    "cannot-edit",
    Severity.ERROR,
    "The file could not be changed without changing more than was meant.",
    "A command that writes into a manifest keeps every comment and byte outside the mapping that "
    "it sets, and reads the result back to prove it. Here that is not possible, most often "
    "because the place is an alias or is shared through an anchor. The file is as it was.",
    "base: *shared-base",
    "Write the mapping out at this place (without an alias), or put in by hand what the command "
    "prints without --write.",
)

# --- cross references ---------------------------------------------------------------------------

NAME_TAKEN = Code(
    "AD170",
    "name-taken",
    Severity.ERROR,
    "An adapter and a composition have the same name.",
    "Both are activated by name, so they share one namespace.",
    "adapters: {tone: ...}\ncompositions: {tone: ...}",
    "Rename one of the two.",
)
UNKNOWN_ADAPTER = Code(
    "AD171",
    "unknown-adapter",
    Severity.ERROR,
    "Nothing of this name is declared.",
    "Compositions, rules and `active` refer to adapters (and compositions) by their whole names.",
    "adapters: {tone: ...}\nactive: tune",
    "Correct the name, or declare it under `adapters`.",
)
NESTED_COMPOSITION = Code(
    "AD172",
    "composition-not-exact",
    Severity.ERROR,
    "A composition is a member where only adapters may be.",
    "Only a `sum` may hold another composition, and only another `sum`, because only sums can be "
    "multiplied out exactly into weights of adapters.",
    "a: {combine: ties, of: {b: 1.0}, density: 0.5}   # b is a composition",
    "Name the adapters themselves, or make both compositions a `sum`.",
)
COMPOSITION_CYCLE = Code(
    "AD173",
    "composition-cycle",
    Severity.ERROR,
    "A composition is made of itself, or nested too deep (more than 32).",
    "Following the members of a composition comes back to it, or does not end in reasonable time.",
    "a: {of: {b: 1}}\nb: {of: {a: 1}}",
    "Break the circle, or name the adapters themselves.",
)
UNUSED_FIELD = Code(
    "AD174",
    "field-not-used",
    Severity.ERROR,
    "This method of combining does not use this field.",
    "`density` is used by ties, dare and magnitude_prune, `seed` by dare, "
    "`majority_sign_method` by ties and dare_ties (and their _svd forms), `svd_rank` and "
    "`svd_clamp` by svd and all _svd forms, weights by module by sum. A field without effect "
    "means that another method was meant.",
    "mix: {combine: sum, of: {a: 1}, density: 0.5}",
    "Remove the field, or choose the method that uses it.",
)
FIELD_NEEDED = Code(
    "AD175",
    "field-needed",
    Severity.ERROR,
    "This method of combining needs a field that is not there.",
    "Methods of the ties, dare and magnitude_prune families need a `density` (the share of "
    "values kept); dare, which drops values at random, needs a `seed` so that the same manifest "
    "gives the same weights.",
    "mix: {combine: dare_ties, of: {a: 1, b: 1}, density: 0.5}   # no seed",
    "Add the field.",
)
BAD_WEIGHT = Code(
    "AD176",
    "bad-weight",
    Severity.ERROR,
    "A weight is zero, infinite or not a number.",
    "A member at weight 0 changes nothing, and an infinite weight makes every answer NaN. "
    "Members that cancel out within nested sums have weight 0 too.",
    "mix: {of: {billing: 1.0, tone: 0}}",
    "Give a finite weight other than 0, or remove the member.",
)
UNKNOWN_REGISTRY = Code(
    "AD177",
    "unknown-registry",
    Severity.ERROR,
    "A source names a registry that is not declared.",
    "The source registry://team/refunds looks up `team` under `registries`, which says where.",
    "source: registry://team/refunds@^2.1   # and no registries: {team: ...}",
    "Declare it: registries: {team: s3://bucket/registry}.",
)
SOURCE_NOT_HERE = Code(
    "AD178",
    "source-not-here",
    Severity.ERROR,
    "This kind of source cannot stand here.",
    "A registry holds adapters: a base model cannot come from one, and a registry is not found "
    "through another.",
    "base: {model: registry://team/llama}",
    "Name the place itself (hf://, s3://, ./folder).",
)
MUTABLE_REMOTE = Code(
    "AD179",
    "mutable-remote",
    Severity.ERROR,
    "`mutable` stands on a source that is not a local folder.",
    "`mutable: true` is for a folder on this machine that is still changing, such as a running "
    "training. What is remote is pinned by the lock instead.",
    "tone: {source: hf://acme/tone, mutable: true}",
    "Remove `mutable`; `lock --upgrade NAME` moves a remote source on.",
)
MUTABLE_DIGEST = Code(
    "AD180",
    "mutable-digest",
    Severity.ERROR,
    "A mutable adapter cannot have the digest that is asked for.",
    "What is still changing has no digest: `mutable` contradicts a `sha256` beside it and a "
    "policy with `require_digest: true`.",
    "tone: {source: ./tone, mutable: true}\npolicy: {require_digest: true}",
    "Remove `mutable` once the adapter is finished.",
)
BAD_DEVICE_MAP = Code(
    "AD181",
    "bad-device-map",
    Severity.ERROR,
    "This is no device or map of devices.",
    "A device_map is auto, balanced, balanced_low_0, sequential, a device (cpu, cuda, cuda:0, mps, "
    "xpu:1 ...), or a mapping from modules to devices, numbers of GPUs or disk; the empty module "
    'name "" is the whole model.',
    "base: {device_map: gpu0}",
    'Write auto, cpu, cuda:0, or {"": 0}.',
)
SAME_SOURCE = Code(
    "AD182",
    "same-source-twice",
    Severity.WARNING,
    "Two adapters are the same one under two names.",
    "They have the same source and options, so the second only costs memory. It may be meant, "
    "as with two trainable copies.",
    "a: {source: ./tone}\nb: {source: ./tone}",
    "Remove one, or correct its source.",
)
REPEATED_NAME = Code(
    "AD183",
    "repeated-name",
    Severity.ERROR,
    "The same entry stands twice in a list.",
    "A name that is active twice would count double; elsewhere the second has no effect.",
    "active: [tone, tone]",
    "Remove one; to make an adapter stronger, give it a weight in a composition.",
)
BAD_MIRROR = Code(
    "AD184",
    "bad-mirror",
    Severity.ERROR,
    "A mirror cannot rewrite addresses this way.",
    "A mirror replaces a prefix by another when fetching. The prefix starts with a scheme "
    "(hf://, s3://bucket/), the replacement is a source, and both end with a slash or neither "
    "does, else the rest of the address would be glued on wrongly.",
    'mirrors: {"hf://": s3://mirror/hf}   # would give s3://mirror/hfacme/tone',
    'End both with a slash: "hf://": s3://mirror/hf/.',
)
MORE = Code(
    "AD199",
    "more-findings",
    Severity.ERROR,
    "There are more findings than are shown (200).",
    "A file with so many mistakes usually has one at its root, such as a section at the wrong "
    "indentation, or is no manifest at all.",
    "adapterdock validate some-other-file.yaml",
    "Correct the first ones and check again.",
)
NAMES_IN_CASE = Code(
    "AD379",
    "names-differ-in-case",
    Severity.ERROR,
    "Two names differ in nothing but case.",
    "Names of adapters and compositions become folders when a model is saved, and on many disks "
    "(macOS, Windows) `Tone` and `tone` are one folder. So a manifest, or a model, has only one of "
    "them. A name is still compared with its case: `Tone` is not found under `tone`.",
    "adapters:\n  tone: {source: ./a}\n  Tone: {source: ./b}",
    "Give one of them another name.",
)
