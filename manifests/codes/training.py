"""Codes AD746, AD747, AD769 and AD793 to AD799: beginning adapters, and saving them."""

from __future__ import annotations

from ..findings import Severity
from .code import Code

SAVED_MERGED = Code(
    "AD746",
    "saved-merged",
    Severity.WARNING,
    "Adapters that are attached and not merged were not written.",
    "While adapters are merged, `save_pretrained` writes a plain model: the base with them in its "
    "weights. Adapters beside them have no place in it.",
    'model.merge_adapter("a"); model.save_pretrained(folder), with "b" attached too',
    "unmerge, and save again, to write the adapters; or save_adapter(folder, name) each",
)


ACTIVE_NOT_SAVED = Code(
    "AD747",
    "active-not-saved",
    Severity.WARNING,
    "What answers by default is not in the saved manifest.",
    "A manifest's sum holds adapters and sums. What another method made (`ties`, `svd`, ..) is one "
    "adapter there, active at weight 1 and not at another.",
    'model.set_adapter({"made-by-ties": 0.5, "tone": 1.0}); model.save_pretrained(folder)',
    "after loading, call set_adapter with the same weights again",
)
SAVE_WITHOUT_CONFIG = Code(
    "AD793",
    "save-without-config",
    Severity.ERROR,
    "The adapter cannot be saved: there is no config to save it with.",
    "An adapter on disk is its tensors and the config that says what they mean. This one was put "
    "into the model from tensors and a plan, without a config.",
    "save_adapter of an adapter that attach_adapter(model, name, plan, tensors) attached",
    "attach it with its config (load_adapter(peft_config=..., adapter_state_dict=...))",
)
SAVE_THROUGH_PEFT = Code(
    "AD769",
    "save-through-peft",
    Severity.ERROR,
    "The adapter cannot be saved: PEFT stores something else than its layers hold.",
    "Of some methods that attach through PEFT the file has another form than the parameters: the "
    "numbers of SHiRA's places, VB-LoRA's best vectors.",
    "save_adapter of a SHiRA adapter",
    "copy the folder that it was loaded from, or save it with PEFT",
)
SAVE_FAILED = Code(
    "AD794",
    "save-failed",
    Severity.ERROR,
    "The folder could not be written.",
    "Files are written into a temporary folder within the target, and renamed to their names when "
    "all of them are there. What stood there before is still there, or is whole.",
    "save_adapter into a folder that is read-only, or on a disk that is full",
    "make the folder writable, or save elsewhere",
)
FRESH_NOTHING = Code(
    "AD795",
    "fresh-selects-nothing",
    Severity.ERROR,
    "The config of a new adapter selects no module of the model.",
    "`target_modules` names modules by the end of their names, by a pattern, or all of them by "
    "`all-linear`; PEFT's defaults by the kind of model are not guessed here.",
    'add_adapter("new", LoraConfig(target_modules=["q_porj"]))',
    "name modules that the model has (print(model.base_model) shows them)",
)
FRESH_INIT = Code(
    "AD796",
    "fresh-init",
    Severity.ERROR,
    "A new adapter cannot be begun in this way.",
    "`true`, `false`, `gaussian` and `orthogonal` set the factors and nothing else. PiSSA, OLoRA, "
    "CorDA, LoftQ and LoRA-GA begin by changing the base, which is never done here; EVA needs "
    "data. Tied layers are not adapted together.",
    'add_adapter("new", LoraConfig(init_lora_weights="pissa", ...))',
    "begin with init_lora_weights: true, or with PEFT, convert, and load what it saved",
)
FRESH_METHOD = Code(
    "AD797",
    "fresh-method",
    Severity.ERROR,
    "Adapters of this method can be loaded, but not begun.",
    "Not every method that attaches has its initialisation here.",
    "add_adapter with the config of a method that `docs/methods.md` does not list as trained",
    "begin it with PEFT, save it, and load it with trainable=True",
)
BASE_NOT_NAMED = Code(
    "AD798",
    "base-not-named",
    Severity.WARNING,
    "The saved manifest cannot say where the base is.",
    "A base is named by the manifest that loaded it, or by the folder or the repository that "
    "transformers loaded it from. This one was made in memory, or its folder is gone. Its "
    "fingerprint is written, so that attaching still tells it from another.",
    "AdaptedModel(LlamaForCausalLM(config)).save_pretrained(folder)",
    "bring it back with adapterdock.attach(base, folder), or load(folder, model=SOURCE)",
)
RULES_NOT_SAVED = Code(
    "AD799",
    "rules-not-saved",
    Severity.WARNING,
    "The model's rules are not in the saved manifest.",
    "Rules that a manifest declared are written with the model. A function that was set as "
    "`model.rules` cannot be.",
    "model.rules = my_function; model.save_pretrained(folder)",
    "set the function again after loading, or declare the rules in a manifest",
)
