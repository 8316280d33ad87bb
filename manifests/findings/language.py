"""Codes AD1xx: the language of manifests."""

from __future__ import annotations

from .code import Code
from .finding import Severity

UNREADABLE = Code(
    "AD101",
    "manifest-unreadable",
    Severity.ERROR,
    "Cannot read the file.",
    "Check the path (it counts from the current folder) and the file's permissions.",
)
TOO_LARGE = Code(
    "AD102",
    "manifest-too-large",
    Severity.ERROR,
    "The file is larger than a manifest may be (1 MiB).",
    "Name the manifest itself, or split a very large catalogue into several manifests.",
)
NOT_UTF8 = Code(
    "AD103",
    "not-utf8",
    Severity.ERROR,
    "The file is not UTF-8 text.",
    "Save the file as UTF-8.",
)
YAML_SYNTAX = Code(
    "AD104",
    "yaml-syntax",
    Severity.ERROR,
    "The file is not valid YAML.",
    "Check the line named and the one above it. Quote text that contains ': ' or starts with one "
    "of @ ` % & * ! | > [ {.",
)
EMPTY = Code(
    "AD105",
    "manifest-empty",
    Severity.ERROR,
    "The file is empty.",
    "Start with `version: 1`, or run `adapterdock init` to write a first manifest.",
)
SEVERAL_DOCUMENTS = Code(
    "AD106",
    "several-documents",
    Severity.ERROR,
    "The file contains more than one YAML document.",
    "Keep one document in each file. Use `extends` to build one manifest on another.",
)
TOO_DEEP = Code(
    "AD107",
    "nested-too-deep",
    Severity.ERROR,
    "Mappings or lists are nested too deep (more than 32 levels).",
    "Flatten the value at the place named.",
)
TOO_MANY_NODES = Code(
    "AD108",
    "too-many-nodes",
    Severity.ERROR,
    "The file has too many values (more than 100,000, with aliases expanded).",
    "Remove the aliases that multiply each other.",
)
BAD_ALIAS = Code(
    "AD109",
    "bad-alias",
    Severity.ERROR,
    "An alias (`*name`) has no anchor above it, or contains itself.",
    'Quote text that starts with a star ("*norm*"), or write the anchor before its alias.',
)
CUSTOM_TAG = Code(
    "AD110",
    "tag-not-allowed",
    Severity.ERROR,
    "The file uses a YAML tag (`!something`).",
    "Remove the tag, or quote text that starts with '!'.",
)
DUPLICATE_KEY = Code(
    "AD111",
    "duplicate-key",
    Severity.ERROR,
    "Duplicate key in one mapping.",
    "Rename or remove one of the two keys.",
)
KEY_NOT_TEXT = Code(
    "AD112",
    "key-not-text",
    Severity.ERROR,
    "A key is not text.",
    "Write the key as text, with quotes if necessary.",
)
BAD_MERGE = Code(
    "AD113",
    "bad-merge-key",
    Severity.ERROR,
    "`<<` merges something that is not a mapping.",
    "Point `<<` to a mapping: `<<: *defaults` after `x-defaults: &defaults {...}`.",
)
UNKNOWN_KEY = Code(
    "AD120",
    "unknown-key",
    Severity.ERROR,
    "Unknown key.",
    "Correct the spelling, or rename your own data to x-something.",
)
WRONG_TYPE = Code(
    "AD121",
    "wrong-type",
    Severity.ERROR,
    "The value has the wrong type.",
    "Write a value of the expected type. Remove the quotes around a number.",
)
MISSING_KEY = Code(
    "AD122",
    "missing-key",
    Severity.ERROR,
    "A required key is missing.",
    "Add the key.",
)
NOT_A_CHOICE = Code(
    "AD123",
    "not-a-choice",
    Severity.ERROR,
    "The value is not one of the allowed words.",
    "Write one of the words listed.",
)
BAD_NAME = Code(
    "AD124",
    "bad-name",
    Severity.ERROR,
    "Invalid name.",
    "Choose another name, such as my-adapter.",
)
BAD_VALUE = Code(
    "AD125",
    "bad-value",
    Severity.ERROR,
    "Invalid value.",
    "Write a value as described under 'expected'.",
)
BAD_SOURCE = Code(
    "AD126",
    "bad-source",
    Severity.ERROR,
    "Invalid source.",
    "Write ./ before a folder and hf:// before a Hub repository.",
)
UNKNOWN_VERSION = Code(
    "AD127",
    "unknown-version",
    Severity.ERROR,
    "Unknown version of the manifest's language.",
    "Write `version: 1`, or install a newer adapterdock.",
)
VARIABLE_UNSET = Code(
    "AD130",
    "variable-unset",
    Severity.ERROR,
    "An environment variable is not set.",
    "Set the variable, or write a default: ${NAME:-default}.",
)
VARIABLE_MISPLACED = Code(
    "AD131",
    "variable-misplaced",
    Severity.ERROR,
    "Variables are not allowed here.",
    "Write the value itself, or use one overlay for each environment (`extends`).",
)
VARIABLE_SYNTAX = Code(
    "AD132",
    "variable-syntax",
    Severity.ERROR,
    "Invalid `$` expression.",
    "Write ${NAME} or ${NAME:-default}; write $$ for a dollar sign.",
)
VARIABLE_SECRET = Code(
    "AD133",
    "variable-secret",
    Severity.ERROR,
    "A variable that holds a secret would be written into the lock.",
    "Leave the credentials in the environment or a profile (HF_TOKEN, AWS_PROFILE, "
    "AWS_ACCESS_KEY_ID, ...) and out of the manifest.",
)
EXTENDS_UNREADABLE = Code(
    "AD140",
    "extends-unreadable",
    Severity.ERROR,
    "Cannot read the file that this manifest extends.",
    "Check the path. It is relative to this file's own folder.",
)
EXTENDS_CYCLE = Code(
    "AD141",
    "extends-cycle",
    Severity.ERROR,
    "The manifest extends itself, or the chain of `extends` is too long (more than 16).",
    "Remove `extends` from one file of the cycle.",
)
BAD_EXTENDS = Code(
    "AD142",
    "bad-extends",
    Severity.ERROR,
    "Invalid `extends`: it takes one local YAML file.",
    "Write one path, and let that file extend the next.",
)
NOTHING_TO_REMOVE = Code(
    "AD143",
    "nothing-to-remove",
    Severity.ERROR,
    "An overlay removes a name that does not exist.",
    "Correct the name, or remove the line.",
)
SECRET = Code(
    "AD150",
    "secret-in-manifest",
    Severity.ERROR,
    "The file contains a secret.",
    "Remove it, revoke it if the file was shared, and put credentials where the client looks for "
    "them (HF_TOKEN, AWS_PROFILE, a keyring).",
)
SECRET_OPTION = Code(
    "AD151",
    "secret-storage-option",
    Severity.ERROR,
    "Storage options contain a credential.",
    "Remove the key. Credentials come from the usual places (environment, profile, keyring) "
    "without being named.",
)
CANNOT_EDIT = Code(
    "AD160",
    "cannot-edit",
    Severity.ERROR,
    "Cannot edit the file without changing more than was asked.",
    "Write the mapping at this place without an alias, or paste what the command prints without "
    "--write.",
)
NAME_TAKEN = Code(
    "AD170",
    "name-taken",
    Severity.ERROR,
    "An adapter and a composition have the same name.",
    "Rename one of the two.",
)
UNKNOWN_ADAPTER = Code(
    "AD171",
    "unknown-adapter",
    Severity.ERROR,
    "Unknown adapter or composition.",
    "Correct the name, or declare it under `adapters`.",
)
NESTED_COMPOSITION = Code(
    "AD172",
    "composition-not-exact",
    Severity.ERROR,
    "A composition cannot be a member here.",
    "Name the adapters themselves, or make both compositions a `sum`.",
)
COMPOSITION_CYCLE = Code(
    "AD173",
    "composition-cycle",
    Severity.ERROR,
    "A composition contains itself, or is nested too deep (more than 32 levels).",
    "Break the cycle, or name the adapters themselves.",
)
UNUSED_FIELD = Code(
    "AD174",
    "field-not-used",
    Severity.ERROR,
    "This method of combining does not use this field.",
    "Remove the field, or choose a method that uses it.",
)
FIELD_NEEDED = Code(
    "AD175",
    "field-needed",
    Severity.ERROR,
    "This method of combining needs a field that is missing.",
    "Add the field.",
)
BAD_WEIGHT = Code(
    "AD176",
    "bad-weight",
    Severity.ERROR,
    "Invalid weight: zero, infinite or not a number.",
    "Give a finite weight other than 0, or remove the member.",
)
UNKNOWN_REGISTRY = Code(
    "AD177",
    "unknown-registry",
    Severity.ERROR,
    "Unknown registry.",
    "Declare it, as in `registries: {team: s3://bucket/registry}`.",
)
SOURCE_NOT_HERE = Code(
    "AD178",
    "source-not-here",
    Severity.ERROR,
    "This kind of source is not allowed here.",
    "Name the place itself (hf://, s3://, ./folder).",
)
MUTABLE_REMOTE = Code(
    "AD179",
    "mutable-remote",
    Severity.ERROR,
    "`mutable` is only for local folders.",
    "Remove `mutable`. Use `lock --upgrade NAME` to update a remote source.",
)
MUTABLE_DIGEST = Code(
    "AD180",
    "mutable-digest",
    Severity.ERROR,
    "A mutable adapter cannot have a digest.",
    "Remove `mutable` once the adapter is finished.",
)
BAD_DEVICE_MAP = Code(
    "AD181",
    "bad-device-map",
    Severity.ERROR,
    "Invalid device or map of devices.",
    'Write auto, cpu, cuda:0, or {"": 0}.',
)
SAME_SOURCE = Code(
    "AD182",
    "same-source-twice",
    Severity.WARNING,
    "Two adapters have the same source.",
    "Remove one, or correct its source.",
)
REPEATED_NAME = Code(
    "AD183",
    "repeated-name",
    Severity.ERROR,
    "Duplicate entry in a list.",
    "Remove one. To make an adapter stronger, give it a weight in a composition.",
)
BAD_MIRROR = Code(
    "AD184",
    "bad-mirror",
    Severity.ERROR,
    "Invalid mirror: the prefix and its replacement do not match.",
    'End both with a slash, as in `"hf://": s3://mirror/hf/`.',
)
MORE = Code(
    "AD199",
    "more-findings",
    Severity.ERROR,
    "Only the first 200 findings are shown.",
    "Correct the first ones and check again.",
)
NAMES_IN_CASE = Code(
    "AD379",
    "names-differ-in-case",
    Severity.ERROR,
    "Two names differ only in case.",
    "Rename one of them.",
)
