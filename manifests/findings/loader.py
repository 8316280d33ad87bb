"""Codes AD7xx: reading weights, attaching them, and choosing which are active."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SAVED_CONTAINER = Code(
    "AD383",
    "saved-container",
    Severity.ERROR,
    "`modules_to_save` names a list or a dictionary of modules, which cannot be replaced.",
    "Name the modules inside the list or dictionary (`layers.0`, `layers.1`) instead.",
)
NOT_EXCHANGED = Code(
    "AD384",
    "not-exchanged",
    Severity.ERROR,
    "The adapter cannot run with other tensors in place of its parameters.",
    "Leave the parameters of this adapter out of the call, or choose one adapter for all rows.",
)
TEMPLATE_REFUSED = Code(
    "AD394",
    "chat-template-refused",
    Severity.ERROR,
    "The base's chat template could not be rendered within its limits.",
    "Use the tokenizer files of the base's own repository, or run with --raw to leave it out.",
)
TENSORS_UNREADABLE = Code(
    "AD701",
    "tensors-unreadable",
    Severity.ERROR,
    "Cannot read an adapter's weights.",
    "Check the path and its permissions, and that nothing writes the file. Then load again.",
)
TENSORS_CHANGED = Code(
    "AD702",
    "tensors-digest-mismatch",
    Severity.ERROR,
    "The weights are not the ones that were locked.",
    "Restore the file (`adapterdock cache verify`, then `adapterdock pull`), or accept the new "
    "one with `adapterdock lock --upgrade NAME`.",
)
TENSORS_NOT_FINITE = Code(
    "AD703",
    "tensors-not-finite",
    Severity.ERROR,
    "An adapter contains NaN or infinite values.",
    "Use an earlier checkpoint of this adapter, or train it again with a lower learning rate.",
)
DTYPE_TOO_NARROW = Code(
    "AD706",
    "dtype-too-narrow",
    Severity.ERROR,
    "A value of the adapter is too large for the dtype that it is attached in.",
    "Declare `dtype: float32` or `dtype: bfloat16` for this adapter.",
)
COMBINE_UNSUPPORTED = Code(
    "AD708",
    "combine-unsupported",
    Severity.ERROR,
    "These adapters cannot be combined in this way.",
    "Use `combine: sum`, which is exact for all adapters. If only the ranks differ, `svd` or a "
    "method with `_svd` works too.",
)
WEIGHT_IDLE = Code(
    "AD709",
    "weight-matches-nothing",
    Severity.ERROR,
    "A weight by module does not match any module of the adapter.",
    "Correct the glob, or put the more specific ones first.",
)
MODULE_UNSUPPORTED = Code(
    "AD712",
    "module-unsupported",
    Severity.ERROR,
    "The method cannot act on this module of the live model.",
    "Use a base without quantisation, or leave this module out of the targets when training.",
)
MODULE_SHARED = Code(
    "AD714",
    "module-shared",
    Severity.ERROR,
    "The module has more than one name in the model.",
    "Give each name its own module (a copy) before adapting the model.",
)
MODULE_ON_META = Code(
    "AD715",
    "module-without-weights",
    Severity.ERROR,
    "The module has no weights: it is on the meta device.",
    "Load the model's weights before attaching.",
)
SITE_NEVER_FIRED = Code(
    "AD716",
    "site-never-fired",
    Severity.WARNING,
    "An adapted module did not run when the adapter was first used.",
    "Check `model.findings` after a use that should reach every module. A module that is still "
    "listed is never called.",
)
SITE_INSIDE_SAVED = Code(
    "AD719",
    "site-inside-saved-module",
    Severity.ERROR,
    "An adapter has factors inside a module that it, or an adapter combined with it, replaces.",
    "Do not combine these two. In one adapter, remove the module from `modules_to_save` or from "
    "the targets.",
)
NAME_TAKEN = Code(
    "AD720",
    "adapter-name-taken",
    Severity.ERROR,
    "The name is already used by an adapter or a composition.",
    "Choose another name. To replace the old adapter, whatever its rank and alpha, use "
    "`load_adapter(source, name, hotswap=True)`.",
)
NAME_INVALID = Code(
    "AD721",
    "adapter-name-invalid",
    Severity.ERROR,
    "Invalid adapter name.",
    "Choose a name such as `billing`.",
    was=("AD912", "bad-adapter-name"),
)
MODEL_COMPILED = Code(
    "AD722",
    "model-compiled",
    Severity.ERROR,
    "The model is already compiled.",
    "Attach first, then compile.",
)
MODEL_WRAPPED = Code(
    "AD723",
    "model-already-adapted",
    Severity.ERROR,
    "The model already has adapters of PEFT or of another wrapper.",
    "Pass the plain base model: `peft_model.unload()`, or `adapted.detach()`.",
)
ATTACH_FAILED = Code(
    "AD726",
    "attach-failed",
    Severity.ERROR,
    "Failed to attach an adapter. The model was not changed.",
    "Check the cause in the message. Free memory or choose another device, then try again.",
)
COMPOSITION_NOT_SAVED = Code(
    "AD727",
    "composition-not-saved",
    Severity.ERROR,
    "Failed to save a composition.",
    "Check the folder, its permissions and the free space.",
)
ADAPTER_UNKNOWN = Code(
    "AD730",
    "adapter-unknown",
    Severity.ERROR,
    "Unknown adapter or composition.",
    "Use one of the names in `model.adapters`.",
)
SELECTION_INVALID = Code(
    "AD731",
    "selection-invalid",
    Severity.ERROR,
    "Invalid selection of adapters.",
    "Pass a name, a list of names, or {name: weight}.",
)
WHOLE_MODULES_MIXED = Code(
    "AD732",
    "whole-modules-mixed",
    Severity.ERROR,
    "Adapters that replace the same module cannot be combined, nor used at another weight than 1.",
    "Activate only one of them at a time, at weight 1.",
)
ADAPTERS_DISABLED = Code(
    "AD733",
    "adapters-disabled",
    Severity.ERROR,
    "An adapter was requested while all adapters are disabled.",
    "Call `model.enable_adapters()` first.",
)
ADAPTER_IN_USE = Code(
    "AD734",
    "adapter-in-use",
    Severity.ERROR,
    "The adapter cannot be removed while it is in use.",
    "Delete the composition first, or wait for running calls to end.",
)
ROUTING_LOST = Code(
    "AD735",
    "routing-lost-in-recompute",
    Severity.ERROR,
    "Gradient checkpointing would run this part again without knowing which adapters were active.",
    "Use `model.gradient_checkpointing_enable()` of transformers, or no checkpointing. Delete "
    "adapters only after backward.",
)
MODEL_DETACHED = Code(
    "AD736",
    "model-detached",
    Severity.ERROR,
    "This wrapper was detached from its base.",
    "Use what `detach()` returned, or attach again.",
)
ACTIVE_DELETED = Code(
    "AD737",
    "active-adapter-deleted",
    Severity.WARNING,
    "The active adapter was deleted. The base now runs without adapters.",
    "Call `set_adapter` with the adapter to use from now on.",
)
COPY_REFUSED = Code(
    "AD738",
    "copy-refused",
    Severity.ERROR,
    "A model with adapters cannot be copied or pickled.",
    "Copy `model.base_model` and attach the adapters to the copy.",
)
NOT_THROUGH_WRAPPER = Code(
    "AD739",
    "not-on-an-adapted-model",
    Severity.ERROR,
    "This method would act on the base only and ignore the adapters.",
    "If the base without adapters is meant, call it on `model.base_model` before adapters are "
    "attached.",
)
STATE_MISMATCH = Code(
    "AD740",
    "state-dict-mismatch",
    Severity.ERROR,
    "The state dict does not match the attached adapters.",
    "Attach the same adapters under the same names first, or load with strict=False.",
)
OUTPUT_NOT_TENSOR = Code(
    "AD741",
    "output-not-a-tensor",
    Severity.ERROR,
    "An adapted module did not take or return one tensor.",
    "Remove this module from the adapter's targets.",
)
FLOAT32_NO_MODULE = Code(
    "AD742",
    "float32-modules-no-match",
    Severity.ERROR,
    "A pattern of `float32_modules` matches no module, or a module that cannot be converted.",
    "Correct the pattern. `adapterdock show` lists the module names.",
)
CANNOT_GENERATE = Code(
    "AD743",
    "cannot-generate",
    Severity.ERROR,
    "The base model has no `generate`.",
    "Load the base with a class that can generate.",
)
BASE_REBUILT = Code(
    "AD744",
    "base-rebuilt",
    Severity.ERROR,
    "The base's modules were replaced while adapters are attached to them.",
    "Detach, change the base, and attach again.",
)
METHOD_NOT_TRAINED = Code(
    "AD745",
    "method-not-trained",
    Severity.ERROR,
    "Adapters of this method can be used, but not trained.",
    "Leave out `trainable`, or continue the training with PEFT.",
)
WEIGHT_FORWARD = Code(
    "AD749",
    "weight-forward-exchanged",
    Severity.ERROR,
    "The forward of a module whose parameters an adapter changes was replaced.",
    "Detach, change the base, and attach again. Or remove the other forward.",
)
TIED_DIFFERS = Code(
    "AD750",
    "tied-rows-differ",
    Severity.ERROR,
    "Rows of tied modules are stored twice, with different values.",
    "Save the adapter again from PEFT, or load it onto a base that does not tie them.",
)
ROWS_COUNT = Code(
    "AD770",
    "rows-and-names-differ",
    Severity.ERROR,
    "adapter_names does not have one name for each row of the batch.",
    "Name as many adapters as the batch has rows.",
)
ROWS_LOST = Code(
    "AD771",
    "rows-not-known-here",
    Severity.ERROR,
    "A module does not see the rows of the batch, so they cannot have different adapters.",
    "Run one batch for each adapter, with `adapter=` or `using`.",
)
CACHE_OF_ANOTHER = Code(
    "AD772",
    "cache-of-another-routing",
    Severity.ERROR,
    "These past_key_values were computed with other adapters than are active now.",
    "Fill the cache with the adapters that you continue with.",
)
NOT_COMPILED_FOR = Code(
    "AD773",
    "not-compiled-for-this",
    Severity.ERROR,
    "The compiled model has no room for these adapters.",
    "Compile again with a larger `max_rank`, after attaching all adapters that you will use.",
)
PROMPT_MIXED = Code(
    "AD774",
    "prompt-mixed",
    Severity.ERROR,
    "Virtual tokens cannot be combined in this way.",
    "Select one adapter with virtual tokens, at weight 1, for the complete batch.",
)
PROMPT_INPUT = Code(
    "AD775",
    "prompt-input",
    Severity.ERROR,
    "An input of this call cannot be combined with virtual tokens.",
    "Leave out this input. Masks have two dimensions and do not count the virtual tokens.",
)
PROMPT_UNSUPPORTED = Code(
    "AD776",
    "prompt-unsupported",
    Severity.ERROR,
    "This model cannot use virtual tokens.",
    "Use the base that the adapter was trained on, or PEFT itself.",
)
GIVEN_UNUSABLE = Code(
    "AD781",
    "given-unusable",
    Severity.ERROR,
    "Invalid adapter in memory.",
    "Pass peft_config=peft.LoraConfig(...) and adapter_state_dict={name: tensor, ...}.",
)
BASE_NOT_LOADED = Code(
    "AD782",
    "base-not-loaded",
    Severity.ERROR,
    "Failed to load the base model with transformers.",
    "Fix what transformers reports, or remove the option from the manifest.",
)
BASE_INCOMPLETE = Code(
    "AD783",
    "base-incomplete",
    Severity.ERROR,
    "The checkpoint lacks parameters of the model.",
    "Use a complete checkpoint, or correct `architectures` in its config.json.",
)
QUANTIZATION_UNKNOWN = Code(
    "AD784",
    "quantization-unknown",
    Severity.ERROR,
    "Invalid base.quantization.",
    "Write `quantization: {quant_method: bitsandbytes, load_in_8bit: true}`, or another method.",
)
GENERATE_FAILED = Code(
    "AD785",
    "generate-failed",
    Severity.ERROR,
    "The model raised an error while it generated.",
    "Check that the tokenizer beside the base is the base's own. For a base without a chat "
    "template, try --raw.",
)
BASE_CLASS_UNKNOWN = Code(
    "AD786",
    "base-class-unknown",
    Severity.ERROR,
    "The base's config.json does not name a model class that is known here.",
    "Upgrade transformers, or set the task that it is loaded for (`base.task: CAUSAL_LM`), or add "
    "`architectures: [LlamaForCausalLM]` (with the right name) to config.json. Or load the model "
    "yourself and use adapterdock.attach.",
)
REMOTE_CODE_REFUSED = Code(
    "AD787",
    "remote-code-refused",
    Severity.ERROR,
    "The base can only be loaded by running Python code from its repository.",
    "Read the files. If you trust them, set base.trust_remote_code: true and lock again.",
)
REMOTE_CODE_ELSEWHERE = Code(
    "AD788",
    "remote-code-elsewhere",
    Severity.ERROR,
    "Loading the base would run code from another repository, which nothing pins.",
    "Copy that repository's Python files beside the weights and name them without `--`. For an "
    "attention kernel, install its package.",
)
BASE_TENSORS_UNUSED = Code(
    "AD789",
    "base-tensors-unused",
    Severity.WARNING,
    "The base's checkpoint has tensors that the loaded model does not use.",
    "No action is needed if these are heads. Otherwise check `architectures` in config.json.",
)
BASE_WARNING = Code(
    "AD790",
    "base-warning",
    Severity.WARNING,
    "transformers warned while it loaded the base.",
    "Follow the warning, or ignore it.",
)
FLOAT32_NO_ORIGINAL = Code(
    "AD791",
    "float32-no-original",
    Severity.ERROR,
    "No float32 values found for a module of `float32_modules`.",
    "Remove the module from float32_modules, load in float32, or save the base again with "
    "save_pretrained so that its names are current.",
)
TOKENIZER_NOT_LOADED = Code(
    "AD792",
    "tokenizer-not-loaded",
    Severity.ERROR,
    "transformers cannot load a tokenizer from the base's folder.",
    "Put the base's tokenizer.json and tokenizer_config.json beside its weights and lock again.",
)
PEFT_MISSING = Code(
    "AD817",
    "peft-missing",
    Severity.ERROR,
    "The adapter's method attaches through PEFT, which is not installed.",
    "Run `pip install 'adapterdock[peft]'`.",
)
PEFT_CHANGED_BASE = Code(
    "AD818",
    "peft-changed-base",
    Severity.ERROR,
    "PEFT would change the base's own weights to make the adapter's layers.",
    "Save the adapter again with an initialisation that does not change the base.",
)
PEFT_PLACE = Code(
    "AD819",
    "peft-place",
    Severity.ERROR,
    "PEFT's layers cannot be used at a module of this model.",
    "Leave out the adapter's dtype (it is then float32, as in PEFT), or use a plain base.",
)
