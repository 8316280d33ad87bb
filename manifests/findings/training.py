"""Codes AD746 to AD748, AD769, AD793 to AD799, AD82x: new adapters, training and saving."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SAVED_MERGED = Code(
    "AD746",
    "saved-merged",
    Severity.WARNING,
    "Adapters that are attached but not merged were not written.",
    "To write these adapters, unmerge and save again, or call save_adapter(folder, name) for each.",
)
ACTIVE_NOT_SAVED = Code(
    "AD747",
    "active-not-saved",
    Severity.WARNING,
    "The saved manifest does not have the active selection.",
    "After loading, call set_adapter with the same weights again.",
)
FRESH_TOKENIZER = Code(
    "AD748",
    "fresh-tokenizer",
    Severity.ERROR,
    "Cannot read the tokenizer for the first values of a prompt.",
    "Name the folder of the base's tokenizer, or start with SAMPLE_VOCAB or RANDOM.",
)
SAVE_THROUGH_PEFT = Code(
    "AD769",
    "save-through-peft",
    Severity.ERROR,
    "The adapter cannot be saved: PEFT stores something else than its layers hold.",
    "Copy the folder that it was loaded from, or save it with PEFT.",
)
SAVE_WITHOUT_CONFIG = Code(
    "AD793",
    "save-without-config",
    Severity.ERROR,
    "The adapter cannot be saved: it has no config.",
    "Attach it with its config (load_adapter(peft_config=..., adapter_state_dict=...)).",
)
SAVE_FAILED = Code(
    "AD794",
    "save-failed",
    Severity.ERROR,
    "Failed to write the folder.",
    "Make the folder writable, or save elsewhere.",
)
FRESH_NOTHING = Code(
    "AD795",
    "fresh-selects-nothing",
    Severity.ERROR,
    "The config of a new adapter does not select any module of the model.",
    "Name modules that the model has (print(model.base_model) shows them).",
)
FRESH_INIT = Code(
    "AD796",
    "fresh-init",
    Severity.ERROR,
    "A new adapter cannot be initialised in this way.",
    "Use init_lora_weights: true. Or create the adapter with PEFT, convert it, and load what PEFT "
    "saved.",
)
FRESH_METHOD = Code(
    "AD797",
    "fresh-method",
    Severity.ERROR,
    "Adapters of this method can be loaded, but not created.",
    "Create it with PEFT, save it, and load it here. Or choose another method.",
)
BASE_NOT_NAMED = Code(
    "AD798",
    "base-not-named",
    Severity.WARNING,
    "The saved manifest does not name the base.",
    "Load it with adapterdock.attach(base, folder), or load(folder, model=SOURCE).",
)
RULES_NOT_SAVED = Code(
    "AD799",
    "rules-not-saved",
    Severity.WARNING,
    "The model's rules are not in the saved manifest.",
    "Set the function again after loading, or declare the rules in a manifest.",
)
ADAPTER_ORIGIN = Code(
    "AD820",
    "adapter-origin",
    Severity.ERROR,
    "An adapter needs either a source or a config.",
    "Keep exactly one of them. In an overlay, `source: null` removes the inherited one.",
)
FRESH_NOT_TRAINABLE = Code(
    "AD821",
    "fresh-not-trainable",
    Severity.ERROR,
    "An adapter has a `config` but lacks `trainable: true`.",
    "Add `trainable: true`, or name the `source` of a trained adapter.",
)
FRESH_FIELD = Code(
    "AD822",
    "fresh-field",
    Severity.ERROR,
    "A field does not apply to this kind of adapter.",
    "Remove the field.",
)
FRESH_UNPLACED = Code(
    "AD823",
    "fresh-unplaced",
    Severity.UNCHECKED,
    "Cannot check which modules a new adapter adapts.",
    "Declare the base, or pass --deep where torch is installed. Attaching to a live model checks "
    "it.",
)
