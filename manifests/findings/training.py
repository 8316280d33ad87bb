"""Codes AD746 to AD748, AD769, AD793 to AD799, AD82x: new adapters, training and saving."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SAVED_MERGED = Code(
    "AD746",
    "saved-merged",
    Severity.WARNING,
    "Adapters that are attached and not merged were not written.",
    "unmerge, and save again, to write the adapters; or save_adapter(folder, name) each",
)
ACTIVE_NOT_SAVED = Code(
    "AD747",
    "active-not-saved",
    Severity.WARNING,
    "What answers by default is not in the saved manifest.",
    "after loading, call set_adapter with the same weights again",
)
FRESH_TOKENIZER = Code(
    "AD748",
    "fresh-tokenizer",
    Severity.ERROR,
    "The tokenizer that a prompt is to begin with cannot be read.",
    "name the folder of the base's tokenizer, or begin with SAMPLE_VOCAB or RANDOM",
)
SAVE_THROUGH_PEFT = Code(
    "AD769",
    "save-through-peft",
    Severity.ERROR,
    "The adapter cannot be saved: PEFT stores something else than its layers hold.",
    "copy the folder that it was loaded from, or save it with PEFT",
)
SAVE_WITHOUT_CONFIG = Code(
    "AD793",
    "save-without-config",
    Severity.ERROR,
    "The adapter cannot be saved: there is no config to save it with.",
    "attach it with its config (load_adapter(peft_config=..., adapter_state_dict=...))",
)
SAVE_FAILED = Code(
    "AD794",
    "save-failed",
    Severity.ERROR,
    "The folder could not be written.",
    "make the folder writable, or save elsewhere",
)
FRESH_NOTHING = Code(
    "AD795",
    "fresh-selects-nothing",
    Severity.ERROR,
    "The config of a new adapter selects no module of the model.",
    "name modules that the model has (print(model.base_model) shows them)",
)
FRESH_INIT = Code(
    "AD796",
    "fresh-init",
    Severity.ERROR,
    "A new adapter cannot be begun in this way.",
    "begin with init_lora_weights: true, or with PEFT, convert, and load what it saved",
)
FRESH_METHOD = Code(
    "AD797",
    "fresh-method",
    Severity.ERROR,
    "Adapters of this method can be loaded, but not begun.",
    "begin it with PEFT, save it, and load it here; or begin another method",
)
BASE_NOT_NAMED = Code(
    "AD798",
    "base-not-named",
    Severity.WARNING,
    "The saved manifest cannot say where the base is.",
    "bring it back with adapterdock.attach(base, folder), or load(folder, model=SOURCE)",
)
RULES_NOT_SAVED = Code(
    "AD799",
    "rules-not-saved",
    Severity.WARNING,
    "The model's rules are not in the saved manifest.",
    "set the function again after loading, or declare the rules in a manifest",
)
ADAPTER_ORIGIN = Code(
    "AD820",
    "adapter-origin",
    Severity.ERROR,
    "An adapter has a source or a config, and not both.",
    "remove one of them; in an overlay, `source: null` removes the inherited one",
)
FRESH_NOT_TRAINABLE = Code(
    "AD821",
    "fresh-not-trainable",
    Severity.ERROR,
    "An adapter that is begun is there to be trained.",
    "add `trainable: true`, or name the `source` of an adapter that was trained",
)
FRESH_FIELD = Code(
    "AD822",
    "fresh-field",
    Severity.ERROR,
    "A field says nothing of an adapter of this origin.",
    "remove the field",
)
FRESH_UNPLACED = Code(
    "AD823",
    "fresh-unplaced",
    Severity.UNCHECKED,
    "Where a new adapter sits could not be checked.",
    "declare the base, or pass --deep where torch is installed; attaching to a live model asks it",
)
