"""Codes AD7xx: reading weights, attaching them, and choosing which are active."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SAVED_CONTAINER = Code(
    "AD383",
    "saved-container",
    Severity.ERROR,
    "`modules_to_save` names a list or a dictionary of modules, which cannot be replaced.",
    "name the modules inside the list or dictionary (`layers.0`, `layers.1`) instead",
)
NOT_EXCHANGED = Code(
    "AD384",
    "not-exchanged",
    Severity.ERROR,
    "The adapter cannot run with other tensors in the place of its parameters.",
    "leave the parameters of this adapter out of the call, or choose one adapter for all rows",
)
TEMPLATE_REFUSED = Code(
    "AD394",
    "chat-template-refused",
    Severity.ERROR,
    "The base's chat template could not be rendered within its bounds.",
    "use the tokenizer files of the base's own repository, or run with --raw to leave it out",
)
TENSORS_UNREADABLE = Code(
    "AD701",
    "tensors-unreadable",
    Severity.ERROR,
    "An adapter's weights could not be read.",
    "check the path and its permissions, and that nothing writes the file; then load again",
)
TENSORS_CHANGED = Code(
    "AD702",
    "tensors-digest-mismatch",
    Severity.ERROR,
    "The bytes that were read are not the ones that were locked.",
    "restore the file (`adapterdock cache verify`, then `adapterdock pull`), or accept the new "
    "one with `adapterdock lock --upgrade NAME`",
)
TENSORS_NOT_FINITE = Code(
    "AD703",
    "tensors-not-finite",
    Severity.ERROR,
    "An adapter holds NaN or infinite values.",
    "use an earlier checkpoint of this adapter, or train it again with a lower learning rate",
)
DTYPE_TOO_NARROW = Code(
    "AD706",
    "dtype-too-narrow",
    Severity.ERROR,
    "A value of the adapter does not fit into the dtype it should be attached in.",
    "declare `dtype: float32` or `dtype: bfloat16` for this adapter",
)
COMBINE_UNSUPPORTED = Code(
    "AD708",
    "combine-unsupported",
    Severity.ERROR,
    "These adapters cannot be combined in this way.",
    "use `combine: sum`, which is exact over any adapters, or svd or a method with _svd where "
    "only the ranks differ",
)
WEIGHT_IDLE = Code(
    "AD709",
    "weight-matches-nothing",
    Severity.ERROR,
    "A weight by module is for no module of the adapter.",
    "correct the glob, or put the more special ones first",
)
MODULE_UNSUPPORTED = Code(
    "AD712",
    "module-unsupported",
    Severity.ERROR,
    "The method cannot act on this module of the live model.",
    "Use a base without quantisation, or leave this module out of the targets when training.",
)
MODULE_NOT_CALLED = Code(
    "AD713",
    "module-never-called",
    Severity.ERROR,
    "The model uses this module's weight without ever calling the module.",
    "take this module out of the adapter's targets when training it",
)
MODULE_SHARED = Code(
    "AD714",
    "module-shared",
    Severity.ERROR,
    "The module is in the model under more than one name.",
    "give each name a module of its own (a copy) before adapting the model",
)
MODULE_ON_META = Code(
    "AD715",
    "module-without-weights",
    Severity.ERROR,
    "The module has no weights: it is on the meta device and nothing will bring them.",
    "load the model's weights before attaching",
)
SITE_NEVER_FIRED = Code(
    "AD716",
    "site-never-fired",
    Severity.WARNING,
    "An adapted module did not run when the adapter was first used.",
    "look at `model.findings` after a use that should reach every module; one that stays there is "
    "never called",
)
SITE_INSIDE_SAVED = Code(
    "AD719",
    "site-inside-saved-module",
    Severity.ERROR,
    "An adapter has factors inside a module that it, or an adapter mixed with it, replaces whole.",
    "do not make these two active together; in one adapter, drop the module from "
    "`modules_to_save` or from the targets",
)
NAME_TAKEN = Code(
    "AD720",
    "adapter-name-taken",
    Severity.ERROR,
    "An adapter or a composition of this name is attached already.",
    "choose another name; or replace the old one, whatever its rank and alpha, by "
    "`load_adapter(source, name, hotswap=True)`",
)
NAME_INVALID = Code(
    "AD721",
    "adapter-name-invalid",
    Severity.ERROR,
    "This cannot be the name of an adapter.",
    "choose a name such as `billing`",
)
MODEL_COMPILED = Code(
    "AD722",
    "model-compiled",
    Severity.ERROR,
    "The model is compiled already.",
    "attach first, compile afterwards",
)
MODEL_WRAPPED = Code(
    "AD723",
    "model-already-adapted",
    Severity.ERROR,
    "The model carries adapters of another kind, or of another wrapper.",
    "give the plain base model: `peft_model.unload()`, or `adapted.detach()`",
)
ATTACH_FAILED = Code(
    "AD726",
    "attach-failed",
    Severity.ERROR,
    "Attaching broke off; the model is as it was before.",
    "see the cause in the message; free memory or choose another device, then try again",
)
COMPOSITION_NOT_SAVED = Code(
    "AD727",
    "composition-not-saved",
    Severity.ERROR,
    "A composition could not be saved.",
    "check the folder, its permissions and the space left",
)
ADAPTER_UNKNOWN = Code(
    "AD730",
    "adapter-unknown",
    Severity.ERROR,
    "No adapter or composition of this name is attached.",
    "`model.adapters` lists the names",
)
SELECTION_INVALID = Code(
    "AD731",
    "selection-invalid",
    Severity.ERROR,
    "This does not say which adapters to use.",
    "give a name, a list of names, or {name: weight}",
)
WHOLE_MODULES_MIXED = Code(
    "AD732",
    "whole-modules-mixed",
    Severity.ERROR,
    "Adapters that bring the same module whole cannot be active together, nor at another weight "
    "than 1.",
    "make one of them active at a time, at weight 1",
)
ADAPTERS_DISABLED = Code(
    "AD733",
    "adapters-disabled",
    Severity.ERROR,
    "An adapter was asked for while all adapters are disabled.",
    "call `model.enable_adapters()` first",
)
ADAPTER_IN_USE = Code(
    "AD734",
    "adapter-in-use",
    Severity.ERROR,
    "This cannot be removed while something depends on it.",
    "delete the composition first, or wait for running calls to end",
)
ROUTING_LOST = Code(
    "AD735",
    "routing-lost-in-recompute",
    Severity.ERROR,
    "Gradient checkpointing would run this part again without knowing which adapters were active.",
    "use `model.gradient_checkpointing_enable()` of transformers, or no checkpointing; delete "
    "adapters only after backward",
)
MODEL_DETACHED = Code(
    "AD736",
    "model-detached",
    Severity.ERROR,
    "This wrapper was detached from its base.",
    "use what `detach()` returned, or attach again",
)
ACTIVE_DELETED = Code(
    "AD737",
    "active-adapter-deleted",
    Severity.WARNING,
    "The default adapter was deleted; the base answers alone now.",
    "call `set_adapter` with the one that should answer from now on",
)
COPY_REFUSED = Code(
    "AD738",
    "copy-refused",
    Severity.ERROR,
    "A model with adapters cannot be copied or pickled as a whole.",
    "copy `model.base_model` and attach the adapters to the copy",
)
NOT_THROUGH_WRAPPER = Code(
    "AD739",
    "not-on-an-adapted-model",
    Severity.ERROR,
    "This method would work on the base alone and leave the adapters out.",
    "call it on `model.base_model` if the base alone is meant, before adapters are attached",
)
STATE_MISMATCH = Code(
    "AD740",
    "state-dict-mismatch",
    Severity.ERROR,
    "A state dict does not belong to the adapters that are attached.",
    "attach the same adapters under the same names first, or load with strict=False",
)
OUTPUT_NOT_TENSOR = Code(
    "AD741",
    "output-not-a-tensor",
    Severity.ERROR,
    "An adapted module did not take or return one tensor.",
    "take this module out of the adapter's targets",
)
FLOAT32_NO_MODULE = Code(
    "AD742",
    "float32-modules-no-match",
    Severity.ERROR,
    "A pattern of `float32_modules` matches no module of the model, or one that cannot be widened.",
    "correct the pattern; `adapterdock show` lists the module names",
)
CANNOT_GENERATE = Code(
    "AD743",
    "cannot-generate",
    Severity.ERROR,
    "The base model has no `generate`.",
    "load the base with a class that can generate",
)
BASE_REBUILT = Code(
    "AD744",
    "base-rebuilt",
    Severity.ERROR,
    "The base's modules were exchanged while adapters sit on them.",
    "detach, change the base, and attach again",
)
METHOD_NOT_TRAINED = Code(
    "AD745",
    "method-not-trained",
    Severity.ERROR,
    "This method's adapters are used here, and not trained.",
    "leave `trainable` out, or continue the training with PEFT",
)
WEIGHT_FORWARD = Code(
    "AD749",
    "weight-forward-exchanged",
    Severity.ERROR,
    "A module whose parameters an adapter changes has a forward that is not its own.",
    "detach, change the base, and attach again; or take the other forward away",
)
TIED_DIFFERS = Code(
    "AD750",
    "tied-rows-differ",
    Severity.ERROR,
    "Rows of tied modules are stored twice, with other values.",
    "save the adapter again from PEFT, or load it onto a base that does not tie them",
)
ROWS_COUNT = Code(
    "AD770",
    "rows-and-names-differ",
    Severity.ERROR,
    "adapter_names has not one name for each row of the batch.",
    "name as many adapters as the batch has rows",
)
ROWS_LOST = Code(
    "AD771",
    "rows-not-known-here",
    Severity.ERROR,
    "A module does not see the rows of the batch: they cannot have adapters of their own.",
    "run one batch for each adapter, with `adapter=` or `using`",
)
CACHE_OF_ANOTHER = Code(
    "AD772",
    "cache-of-another-routing",
    Severity.ERROR,
    "These past_key_values were made with other adapters than are active now.",
    "fill the cache with the adapters that you go on with",
)
NOT_COMPILED_FOR = Code(
    "AD773",
    "not-compiled-for-this",
    Severity.ERROR,
    "The compiled model has no place for what these adapters do.",
    "compile again with a larger `max_rank`, after attaching what is to be used",
)
PROMPT_MIXED = Code(
    "AD774",
    "prompt-mixed",
    Severity.ERROR,
    "Virtual tokens cannot be combined in this way.",
    "select one adapter with virtual tokens, at weight 1, for the whole batch",
)
PROMPT_INPUT = Code(
    "AD775",
    "prompt-input",
    Severity.ERROR,
    "An input of this call cannot stand beside virtual tokens.",
    "leave the input out; masks have two dimensions and do not count the virtual tokens",
)
PROMPT_UNSUPPORTED = Code(
    "AD776",
    "prompt-unsupported",
    Severity.ERROR,
    "This model cannot be given virtual tokens.",
    "use the base that the adapter was trained on, or PEFT itself",
)
GIVEN_UNUSABLE = Code(
    "AD781",
    "given-unusable",
    Severity.ERROR,
    "What was handed over in memory is no adapter.",
    "pass peft_config=peft.LoraConfig(...) and adapter_state_dict={name: tensor, ...}",
)
BASE_NOT_LOADED = Code(
    "AD782",
    "base-not-loaded",
    Severity.ERROR,
    "transformers could not load the base model.",
    "fix what transformers names, or take the option out of the manifest",
)
BASE_INCOMPLETE = Code(
    "AD783",
    "base-incomplete",
    Severity.ERROR,
    "The checkpoint does not fill the model.",
    "use a complete checkpoint, or correct `architectures` in its config.json",
)
QUANTIZATION_UNKNOWN = Code(
    "AD784",
    "quantization-unknown",
    Severity.ERROR,
    "base.quantization is not something that transformers accepts.",
    "write quantization: {quant_method: bitsandbytes, load_in_8bit: true}, or another method",
)
GENERATE_FAILED = Code(
    "AD785",
    "generate-failed",
    Severity.ERROR,
    "The model raised an error while it was answering.",
    "check that the tokenizer beside the base is the base's own; try --raw for a base without chat",
)
BASE_CLASS_UNKNOWN = Code(
    "AD786",
    "base-class-unknown",
    Severity.ERROR,
    "The base's config.json does not name a model class that is known here.",
    "upgrade transformers, or say what it is loaded for (`base.task: CAUSAL_LM`), or add "
    "`architectures: [LlamaForCausalLM]` (or whichever it is) to config.json; or load the model "
    "yourself and use adapterdock.attach",
)
REMOTE_CODE_REFUSED = Code(
    "AD787",
    "remote-code-refused",
    Severity.ERROR,
    "The base can only be loaded by running Python code from its repository.",
    "read the files; if you trust them, set base.trust_remote_code: true and lock again",
)
REMOTE_CODE_ELSEWHERE = Code(
    "AD788",
    "remote-code-elsewhere",
    Severity.ERROR,
    "Loading the base would run code from another repository, which nothing pins.",
    "copy that repository's Python files beside the weights and name them without `--`; for an "
    "attention kernel, install its package",
)
BASE_TENSORS_UNUSED = Code(
    "AD789",
    "base-tensors-unused",
    Severity.WARNING,
    "The base's checkpoint holds tensors that the loaded model has no place for.",
    "nothing, if these are heads; else check `architectures` in config.json",
)
BASE_WARNING = Code(
    "AD790",
    "base-warning",
    Severity.WARNING,
    "transformers warned while it loaded the base.",
    "follow what transformers says, or leave it",
)
FLOAT32_NO_ORIGINAL = Code(
    "AD791",
    "float32-no-original",
    Severity.ERROR,
    "A module of `float32_modules` cannot be given the checkpoint's own values.",
    "take the module out of float32_modules, load in float32, or save the base again with "
    "save_pretrained so that its names are current",
)
TOKENIZER_NOT_LOADED = Code(
    "AD792",
    "tokenizer-not-loaded",
    Severity.ERROR,
    "There is no tokenizer beside the base that transformers can load.",
    "put the base's tokenizer.json and tokenizer_config.json beside its weights and lock again",
)
PEFT_MISSING = Code(
    "AD817",
    "peft-missing",
    Severity.ERROR,
    "The adapter's method attaches through PEFT, which is not installed.",
    "pip install 'adapterdock[peft]'",
)
PEFT_CHANGED_BASE = Code(
    "AD818",
    "peft-changed-base",
    Severity.ERROR,
    "Making the adapter's layers would change the base's own weights.",
    "save the adapter again with an initialisation that leaves the base alone",
)
PEFT_PLACE = Code(
    "AD819",
    "peft-place",
    Severity.ERROR,
    "PEFT's layers cannot sit at a place of this model, or not in this way.",
    "leave the adapter's dtype out (it is then float32, as in PEFT), or use a plain base",
)
