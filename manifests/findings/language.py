"""Codes AD1xx: the language of manifests."""

from __future__ import annotations

from .code import Code
from .finding import Severity

UNREADABLE = Code(
    "AD101",
    "manifest-unreadable",
    Severity.ERROR,
    "The file could not be read.",
    "Check the path (it counts from the current folder) and the file's permissions.",
)
TOO_LARGE = Code(
    "AD102",
    "manifest-too-large",
    Severity.ERROR,
    "The file is larger than a manifest may be (1 MiB).",
    "Give the manifest itself; split a very large catalogue into several manifests.",
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
    "Look at the line named and the one above it; quote text that holds ': ' or starts with one "
    "of @ ` % & * ! | > [ {.",
)
EMPTY = Code(
    "AD105",
    "manifest-empty",
    Severity.ERROR,
    "The file holds nothing.",
    "Start with `version: 1`; `adapterdock init` writes a manifest to begin from.",
)
SEVERAL_DOCUMENTS = Code(
    "AD106",
    "several-documents",
    Severity.ERROR,
    "The file holds more than one YAML document.",
    "Keep one document a file; use `extends` to build one manifest upon another.",
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
    "The file holds too many values (more than 100,000), aliases counted in full.",
    "Remove the aliases that multiply one another.",
)
BAD_ALIAS = Code(
    "AD109",
    "bad-alias",
    Severity.ERROR,
    "An alias (`*name`) names no anchor above it, or holds itself.",
    'Quote text that starts with a star: "*norm*"; else write the anchor before its alias.',
)
CUSTOM_TAG = Code(
    "AD110",
    "tag-not-allowed",
    Severity.ERROR,
    "A YAML tag (`!something`) stands in the file.",
    "Remove the tag; quote text that starts with '!'.",
)
DUPLICATE_KEY = Code(
    "AD111",
    "duplicate-key",
    Severity.ERROR,
    "The same key stands twice in one mapping.",
    "Rename or remove one of the two.",
)
KEY_NOT_TEXT = Code(
    "AD112",
    "key-not-text",
    Severity.ERROR,
    "A key is not text.",
    "Write the key as text, in quotes if need be.",
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
    "The manifest's language has no such key here.",
    "Correct the spelling, or rename your own data to x-something.",
)
WRONG_TYPE = Code(
    "AD121",
    "wrong-type",
    Severity.ERROR,
    "The value is of another kind than this key takes.",
    "Write the kind of value that is expected; remove the quotes around a number.",
)
MISSING_KEY = Code(
    "AD122",
    "missing-key",
    Severity.ERROR,
    "A key that is needed is not there.",
    "Add the key.",
)
NOT_A_CHOICE = Code(
    "AD123",
    "not-a-choice",
    Severity.ERROR,
    "The value is none of those that this key takes.",
    "Write one of the words listed.",
)
BAD_NAME = Code(
    "AD124",
    "bad-name",
    Severity.ERROR,
    "This cannot be a name.",
    "Choose another name, such as my-adapter.",
)
BAD_VALUE = Code(
    "AD125",
    "bad-value",
    Severity.ERROR,
    "The value is of the right kind but not one that can be meant.",
    "See what is expected there.",
)
BAD_SOURCE = Code(
    "AD126",
    "bad-source",
    Severity.ERROR,
    "This is no source.",
    "Write ./ before a folder and hf:// before a Hub repository.",
)
UNKNOWN_VERSION = Code(
    "AD127",
    "unknown-version",
    Severity.ERROR,
    "The manifest is written in a version of the language that is not known here.",
    "Write `version: 1`, or install a newer adapterdock.",
)
VARIABLE_UNSET = Code(
    "AD130",
    "variable-unset",
    Severity.ERROR,
    "An environment variable is used that is not set.",
    "Set the variable, or write a default: ${NAME:-default}.",
)
VARIABLE_MISPLACED = Code(
    "AD131",
    "variable-misplaced",
    Severity.ERROR,
    "`${` stands where variables are not expanded.",
    "Write the value itself, or keep one overlay for each environment (`extends`).",
)
VARIABLE_SYNTAX = Code(
    "AD132",
    "variable-syntax",
    Severity.ERROR,
    "A `$` here is no variable that can be read.",
    "Write ${NAME} or ${NAME:-default}; write $$ for a dollar sign.",
)
VARIABLE_SECRET = Code(
    "AD133",
    "variable-secret",
    Severity.ERROR,
    "A variable that holds a secret would be written into the lock.",
    "Leave the credentials in the environment or a profile (HF_TOKEN, AWS_PROFILE, "
    "AWS_ACCESS_KEY_ID ...) and out of the manifest.",
)
EXTENDS_UNREADABLE = Code(
    "AD140",
    "extends-unreadable",
    Severity.ERROR,
    "The file that this manifest extends could not be read.",
    "Check the path; it counts from this file's own folder.",
)
EXTENDS_CYCLE = Code(
    "AD141",
    "extends-cycle",
    Severity.ERROR,
    "The manifest extends itself, or the chain of `extends` is too long (more than 16).",
    "Remove `extends` from one file of the circle.",
)
BAD_EXTENDS = Code(
    "AD142",
    "bad-extends",
    Severity.ERROR,
    "`extends` names one local YAML file, and this is something else.",
    "Write one path; let that file extend the next.",
)
NOTHING_TO_REMOVE = Code(
    "AD143",
    "nothing-to-remove",
    Severity.ERROR,
    "An overlay removes a name that is not there.",
    "Correct the name, or remove the line.",
)
SECRET = Code(
    "AD150",
    "secret-in-manifest",
    Severity.ERROR,
    "A secret is typed into the file.",
    "Remove it, revoke it if the file was shared, and put credentials where the client looks for "
    "them (HF_TOKEN, AWS_PROFILE, a keyring).",
)
SECRET_OPTION = Code(
    "AD151",
    "secret-storage-option",
    Severity.ERROR,
    "Storage options hold a credential.",
    "Remove the key; credentials come from the usual places (environment, profile, keyring) "
    "without being named.",
)
CANNOT_EDIT = Code(
    "AD160",
    "cannot-edit",
    Severity.ERROR,
    "The file could not be changed without changing more than was meant.",
    "Write the mapping out at this place (without an alias), or put in by hand what the command "
    "prints without --write.",
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
    "Nothing of this name is declared.",
    "Correct the name, or declare it under `adapters`.",
)
NESTED_COMPOSITION = Code(
    "AD172",
    "composition-not-exact",
    Severity.ERROR,
    "A composition is a member where only adapters may be.",
    "Name the adapters themselves, or make both compositions a `sum`.",
)
COMPOSITION_CYCLE = Code(
    "AD173",
    "composition-cycle",
    Severity.ERROR,
    "A composition is made of itself, or nested too deep (more than 32).",
    "Break the circle, or name the adapters themselves.",
)
UNUSED_FIELD = Code(
    "AD174",
    "field-not-used",
    Severity.ERROR,
    "This method of combining does not use this field.",
    "Remove the field, or choose the method that uses it.",
)
FIELD_NEEDED = Code(
    "AD175",
    "field-needed",
    Severity.ERROR,
    "This method of combining needs a field that is not there.",
    "Add the field.",
)
BAD_WEIGHT = Code(
    "AD176",
    "bad-weight",
    Severity.ERROR,
    "A weight is zero, infinite or not a number.",
    "Give a finite weight other than 0, or remove the member.",
)
UNKNOWN_REGISTRY = Code(
    "AD177",
    "unknown-registry",
    Severity.ERROR,
    "A source names a registry that is not declared.",
    "Declare it: registries: {team: s3://bucket/registry}.",
)
SOURCE_NOT_HERE = Code(
    "AD178",
    "source-not-here",
    Severity.ERROR,
    "This kind of source cannot stand here.",
    "Name the place itself (hf://, s3://, ./folder).",
)
MUTABLE_REMOTE = Code(
    "AD179",
    "mutable-remote",
    Severity.ERROR,
    "`mutable` stands on a source that is not a local folder.",
    "Remove `mutable`; `lock --upgrade NAME` moves a remote source on.",
)
MUTABLE_DIGEST = Code(
    "AD180",
    "mutable-digest",
    Severity.ERROR,
    "A mutable adapter cannot have the digest that is asked for.",
    "Remove `mutable` once the adapter is finished.",
)
BAD_DEVICE_MAP = Code(
    "AD181",
    "bad-device-map",
    Severity.ERROR,
    "This is no device or map of devices.",
    'Write auto, cpu, cuda:0, or {"": 0}.',
)
SAME_SOURCE = Code(
    "AD182",
    "same-source-twice",
    Severity.WARNING,
    "Two adapters are the same one under two names.",
    "Remove one, or correct its source.",
)
REPEATED_NAME = Code(
    "AD183",
    "repeated-name",
    Severity.ERROR,
    "The same entry stands twice in a list.",
    "Remove one; to make an adapter stronger, give it a weight in a composition.",
)
BAD_MIRROR = Code(
    "AD184",
    "bad-mirror",
    Severity.ERROR,
    "A mirror cannot rewrite addresses this way.",
    'End both with a slash: "hf://": s3://mirror/hf/.',
)
MORE = Code(
    "AD199",
    "more-findings",
    Severity.ERROR,
    "There are more findings than are shown (200).",
    "Correct the first ones and check again.",
)
NAMES_IN_CASE = Code(
    "AD379",
    "names-differ-in-case",
    Severity.ERROR,
    "Two names differ in nothing but case.",
    "Give one of them another name.",
)
