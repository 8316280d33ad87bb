"""Codes AD3xx: whether an adapter is complete, understood, and fits its base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

HEADER_MALFORMED = Code(
    "AD301",
    "header-malformed",
    Severity.ERROR,
    "The file is not a safetensors file.",
    "Fetch the file again, or save the adapter again with safetensors.",
)
HEADER_TENSOR = Code(
    "AD302",
    "header-tensor-invalid",
    Severity.ERROR,
    "Invalid tensor entry in a safetensors header.",
    "Save the file again with the safetensors library.",
)
FILE_TRUNCATED = Code(
    "AD303",
    "file-size-wrong",
    Severity.ERROR,
    "A safetensors file is shorter or longer than its header says.",
    "Upload or download the file again.",
)
OLDER_LAYOUT_UNCONVERTIBLE = Code(
    "AD304",
    "older-layout-unconvertible",
    Severity.ERROR,
    "The adapter is for modules that transformers has since fused or split.",
    "Merge it with the transformers version that it was made with, or train it again.",
)
OLDER_NAMES = Code(
    "AD305",
    "older-names",
    Severity.WARNING,
    "The adapter uses the names that an older transformers gave the base's modules.",
    "No action is needed. To have today's names, load the adapter and save it again.",
)
OLDER_NAME_AMBIGUOUS = Code(
    "AD306",
    "older-name-ambiguous",
    Severity.ERROR,
    "A name of an older transformers could mean more than one module of the base.",
    "Remove the tensors that are not meant from the file.",
)
TASK_CLASS = Code(
    "AD307",
    "task-without-class",
    Severity.ERROR,
    "transformers has no class for this task and this kind of model.",
    "Correct `base.task` or the adapter's `task_type`, or load the class in Python and attach.",
)
TASKS_MIXED = Code(
    "AD308",
    "tasks-mixed",
    Severity.ERROR,
    "The adapters of one manifest were trained for different tasks.",
    "Write one manifest for each task.",
)
NEW_UNCOVERED = Code(
    "AD309",
    "new-parameters-uncovered",
    Severity.ERROR,
    "A part of the loaded base would have random values with this adapter.",
    "Remove this adapter, or use a base whose files contain this part.",
)
CONFIG_MALFORMED = Code(
    "AD310",
    "adapter-config-malformed",
    Severity.ERROR,
    "adapter_config.json is not one JSON object.",
    "Save the adapter again with PEFT's save_pretrained.",
)
METHOD_MISSING = Code(
    "AD311",
    "method-not-named",
    Severity.ERROR,
    "adapter_config.json does not name the adapter's method.",
    'Add the method\'s name in PEFT\'s spelling, such as "peft_type": "LORA".',
)
METHOD_UNSUPPORTED = Code(
    "AD312",
    "method-not-supported",
    Severity.ERROR,
    "The adapter's method is not supported.",
    "Use an adapter of another method, or load this one with PEFT itself.",
    was=("AD724", "method-not-attachable"),
)
OPTION_TYPE = Code(
    "AD313",
    "config-field-invalid",
    Severity.ERROR,
    "A field of adapter_config.json has a value of the wrong type.",
    "Correct the field, or save the adapter again with PEFT's save_pretrained.",
)
OPTION_UNSUPPORTED = Code(
    "AD314",
    "config-field-not-supported",
    Severity.ERROR,
    "A field of adapter_config.json asks for something that is not supported.",
    "Use an adapter trained without this field, or load this one with PEFT itself.",
)
OPTION_UNKNOWN = Code(
    "AD315",
    "config-field-unknown",
    Severity.ERROR,
    "adapter_config.json sets a field that the adapter's method does not have.",
    "Correct the field's name, or remove the field if it has no effect.",
)
OPTION_UNKNOWN_NEUTRAL = Code(
    "AD316",
    "config-field-unknown-unset",
    Severity.WARNING,
    "adapter_config.json has unknown fields, all of them unset.",
    "No action is needed. Upgrading adapterdock removes the warning.",
)
OPTION_CONTRADICTION = Code(
    "AD317",
    "config-fields-contradict",
    Severity.ERROR,
    "Two fields of adapter_config.json contradict each other.",
    "Put the layers into the pattern, or give the targets as a list. For another field, save the "
    "adapter again with PEFT.",
)
INIT_CHANGES_BASE = Code(
    "AD318",
    "init-changed-the-base",
    Severity.ERROR,
    "Training changed the base's weights, and the adapter only fits the changed base.",
    "Convert it where it was trained: save_pretrained(path, "
    "path_initial_model_for_weight_conversion=...) writes a plain LoRA.",
)
PATTERN_INVALID = Code(
    "AD319",
    "pattern-invalid",
    Severity.ERROR,
    "Invalid regular expression in adapter_config.json.",
    "Correct the pattern, or list the modules by name.",
)
PATTERN_TOO_SLOW = Code(
    "AD320",
    "pattern-too-slow",
    Severity.ERROR,
    "The patterns in adapter_config.json take too long to match.",
    "List the modules by name.",
)
PEFT_NEWER = Code(
    "AD321",
    "peft-version-newer",
    Severity.WARNING,
    "The adapter was saved by a PEFT that is newer than the versions known here.",
    "Upgrade adapterdock if a release knows this version.",
)
PEFT_VERSION_INVALID = Code(
    "AD322",
    "peft-version-invalid",
    Severity.ERROR,
    "Invalid version number in peft_version.",
    "Remove the field, or write the version of PEFT that saved the adapter.",
)
ALPHA_AMBIGUOUS = Code(
    "AD323",
    "alpha-ambiguous",
    Severity.WARNING,
    "Several patterns of alpha_pattern match one module and give different alphas.",
    "Make the patterns exclude each other, with the alphas of the training.",
)
VOCABULARY_NOT_RESIZED = Code(
    "AD324",
    "vocabulary-not-resized",
    Severity.ERROR,
    "The base does not have the number of token rows that base.vocab_size says.",
    "Call `model.resize_token_embeddings(N)` with that number before attaching.",
)
MERGE_LOADED_AS = Code(
    "AD325",
    "merge-needs-loading",
    Severity.ERROR,
    "This base is not loaded as its files say, so its files cannot be merged one by one.",
    "Load it, then call `model.merge_and_unload().save_pretrained(DIR)`.",
)
EMPTY = Code(
    "AD330",
    "adapter-empty",
    Severity.ERROR,
    "The adapter would change nothing.",
    "Check which file was uploaded and which checkpoint was saved. To continue its training, "
    "declare `trainable: true`.",
    was=("AD704", "tensors-change-nothing"),
)
HALF_PRESENT = Code(
    "AD331",
    "factors-incomplete",
    Severity.ERROR,
    "An adapted module lacks tensors that the method needs.",
    "Save or upload the adapter again.",
    was=("AD707", "tensors-not-as-planned"),
)
TENSOR_UNEXPECTED = Code(
    "AD332",
    "tensor-unexpected",
    Severity.ERROR,
    "The file has tensors that do not belong to any module.",
    "Convert the file to PEFT's names (`base_model.model.<module>.lora_A.weight`).",
    was=("AD725", "tensors-without-place"),
)
TARGETS_WITHOUT_TENSORS = Code(
    "AD333",
    "targets-without-tensors",
    Severity.ERROR,
    "The config selects modules of the base for which the file has no tensors.",
    "Check that this is the adapter's base and that the file is complete.",
)
TENSORS_WITHOUT_TARGET = Code(
    "AD334",
    "tensors-without-target",
    Severity.ERROR,
    "The file has tensors for modules that the config does not select.",
    "Correct target_modules, exclude_modules or the layer fields, or the file.",
)
TARGETS_UNDECLARED = Code(
    "AD335",
    "targets-not-declared",
    Severity.UNCHECKED,
    "adapter_config.json does not say which modules are adapted.",
    "Write the names of the adapted modules into target_modules.",
)
RANK_MISMATCH = Code(
    "AD336",
    "rank-mismatch",
    Severity.ERROR,
    "The tensors have another rank than the config says.",
    "Correct r or rank_pattern, and make sure that lora_alpha belongs to the same training.",
)
TENSOR_DTYPE = Code(
    "AD337",
    "tensor-dtype",
    Severity.ERROR,
    "A tensor of the adapter does not have a dtype that can be used.",
    "Save the adapter in float32, float16 or bfloat16.",
    was=("AD705", "tensors-dtype-unsupported"),
)
FAN_IN_FAN_OUT = Code(
    "AD338",
    "fan-in-fan-out-disagrees",
    Severity.WARNING,
    "fan_in_fan_out does not match the base's modules.",
    "No action is needed. Correcting the field removes the warning.",
)
SHAPE_INVALID = Code(
    "AD339",
    "factor-shape-invalid",
    Severity.ERROR,
    "Invalid shape of a factor.",
    "Gather the parameters before save_pretrained, and save again.",
)
BASE_UNDECLARED = Code(
    "AD340",
    "base-not-declared",
    Severity.UNCHECKED,
    "There is no base to check the adapter against.",
    "Name the base in the manifest: `base.model`.",
)
ARCHITECTURE_UNKNOWN = Code(
    "AD341",
    "architecture-unknown",
    Severity.UNCHECKED,
    "The module names of this architecture are not known.",
    "Name the model's class of transformers under `architectures` in config.json, or run "
    "`adapterdock validate --deep` to ask transformers. For a class from a repository's own code, "
    "pin the base to a commit and set base.trust_remote_code: true. Or accept this code: the "
    "loaded model is checked before anything is attached.",
)
MODULE_MISSING = Code(
    "AD342",
    "module-not-in-base",
    Severity.ERROR,
    "The base does not have a module that the adapter adapts.",
    "Use the base that the adapter was trained on, loaded with the same model class.",
    was=("AD710", "module-missing"),
)
SIZE_MISMATCH = Code(
    "AD343",
    "size-mismatch",
    Severity.ERROR,
    "The adapter's tensors do not have the sizes of the base's modules.",
    "Use the base that the adapter was trained on.",
    was=("AD711", "module-misfit"),
)
KIND_MISMATCH = Code(
    "AD344",
    "module-kind-mismatch",
    Severity.ERROR,
    "The adapter's tensors are for another kind of module than the base has there.",
    "Use the base, and the version of its code, that the adapter was trained on.",
)
SIZE_UNKNOWN = Code(
    "AD345",
    "size-unknown",
    Severity.UNCHECKED,
    "The sizes of a module of the base are not known.",
    "Accept this code: the loaded model is checked before anything is attached.",
)
TIED_WEIGHT = Code(
    "AD346",
    "tied-weight-adapted",
    Severity.WARNING,
    "The adapter acts on one of two modules that share their weight.",
    "No action is needed for attaching. For training, see `ensure_weight_tying` in PEFT.",
)
VOCABULARY = Code(
    "AD347",
    "vocabulary-mismatch",
    Severity.ERROR,
    "The adapter was trained with another vocabulary size than the base has.",
    "Use a base whose embeddings were resized as in training.",
)
TOKENS_ADDED = Code(
    "AD348",
    "tokens-added",
    Severity.WARNING,
    "The adapter's tokenizer has tokens that the base's does not have.",
    "Load the tokenizer from the adapter's folder.",
)
SAVED_MODULE = Code(
    "AD349",
    "saved-module-mismatch",
    Severity.ERROR,
    "A module in modules_to_save is incomplete, or does not fit the base.",
    "Load the base as in training (same class, same number of labels), or save the adapter again.",
    was=("AD718", "saved-module-incomplete"),
)
SAVED_NAME_UNUSED = Code(
    "AD350",
    "saved-name-unused",
    Severity.WARNING,
    "A name in modules_to_save does not match any module of the base.",
    "No action is needed if the name was never meant for this base. Otherwise correct it and "
    "train again.",
)
BIAS_MISMATCH = Code(
    "AD351",
    "bias-mismatch",
    Severity.ERROR,
    "The trained biases do not match the config, or do not fit the base.",
    "Save the adapter again with PEFT's `save_pretrained`, and use the base that it was trained "
    "on.",
    was=("AD717", "bias-unsupported"),
)
BASE_QUANTISED = Code(
    "AD352",
    "base-quantised",
    Severity.WARNING,
    "The base's checkpoint is quantised.",
    "No action is needed if the adapter was trained on this checkpoint.",
)
ARCHITECTURE_MISMATCH = Code(
    "AD353",
    "architecture-mismatch",
    Severity.ERROR,
    "The adapter records that it was trained on another architecture.",
    "Use the base that the adapter was trained on.",
)
EMBEDDING_MISMATCH = Code(
    "AD354",
    "embedding-mismatch",
    Severity.ERROR,
    "An embedding stored with the adapter does not fit the base's.",
    "Use the base that the adapter was trained on.",
)
PATTERN_UNUSED = Code(
    "AD355",
    "pattern-matches-nothing",
    Severity.WARNING,
    "A rank, an alpha, a layer or a parameter in the config does not match any adapted module.",
    "Correct the entry, or remove it if it was never meant for this adapter.",
)
TARGET_NOT_CALLED = Code(
    "AD356",
    "target-never-called",
    Severity.ERROR,
    "The adapter acts on a module that the model never calls.",
    "Train the adapter without this target (`exclude_modules` removes it), on this base.",
    was=("AD713", "module-never-called"),
)
TARGET_IDLE = Code(
    "AD357",
    "target-does-nothing",
    Severity.WARNING,
    "The adapter has zero factors at a module that the model never calls.",
    "No action is needed. Leave the module out of the targets when training again.",
)
EXPERTS_UNCLEAR = Code(
    "AD358",
    "experts-layout-unclear",
    Severity.ERROR,
    "Cannot tell how the adapter's factors are laid out on a mixture's experts.",
    "Write the `peft_version` that trained the adapter into adapter_config.json.",
)
OPTION_UNCHECKED = Code(
    "AD359",
    "config-field-unchecked",
    Severity.UNCHECKED,
    "adapter_config.json sets a field that nobody knows.",
    "Upgrade adapterdock, or accept the code (--accept AD359) if it acts in training only.",
)
RECORDED_OTHER = Code(
    "AD360",
    "recorded-base-differs",
    Severity.ERROR,
    "The adapter records another base than the manifest's.",
    "If both are the same model, list the recorded name in base.aliases.",
)
RECORDED_SHAPE = Code(
    "AD361",
    "recorded-base-other-shape",
    Severity.ERROR,
    "The base that the adapter records has another architecture or size.",
    "Use the base that the adapter was trained on.",
)
RECORDED_GONE = Code(
    "AD362",
    "recorded-base-not-found",
    Severity.WARNING,
    "The adapter records a local path as its base, which does not exist here.",
    "If it is the manifest's base, list the path in base.aliases.",
)
RECORDED_NONE = Code(
    "AD363",
    "recorded-base-missing",
    Severity.WARNING,
    "The adapter does not record its base.",
    "Write the base's Hub id into adapter_config.json.",
)
RECORDED_UNCONFIRMED = Code(
    "AD364",
    "recorded-base-unconfirmed",
    Severity.UNCHECKED,
    "The adapter records a Hub model, and the manifest's base has no Hub id.",
    "If it is the same model, list the recorded name in base.aliases.",
)
RECORDED_REVISION = Code(
    "AD365",
    "recorded-revision-differs",
    Severity.WARNING,
    "The adapter records another revision of the base than the one in use.",
    "Pin base.model to the recorded revision, or compare the two commits.",
)
RECORDED_UNCOMPARED = Code(
    "AD366",
    "recorded-base-uncompared",
    Severity.WARNING,
    "The adapter records its base, and the manifest declares nothing to compare it with.",
    "List the model's Hub id in base.aliases, or declare base.fingerprint.",
)
OPTION_OF_TRAINER = Code(
    "AD367",
    "config-field-of-trainer",
    Severity.WARNING,
    "adapter_config.json has fields of another trainer that only act in training.",
    "No action is needed. Set learning rates in your own optimizer if you train it further.",
)
ACTIVATION_UNKNOWN = Code(
    "AD368",
    "activation-unknown",
    Severity.ERROR,
    "Cannot tell from which token on an aLoRA acts.",
    "Pass input_ids, and use the adapter on modules that see the rows' tokens.",
)
FOREIGN_FORMAT = Code(
    "AD369",
    "foreign-adapter-format",
    Severity.ERROR,
    "The source contains an adapter in a format that is not supported.",
    "Convert the adapter to PEFT's format with the program that wrote it.",
)
OFT_FORMULA_CHANGED = Code(
    "AD370",
    "oft-formula-changed",
    Severity.UNCHECKED,
    "The OFT adapter was trained with a Cayley-Neumann series that PEFT has since changed.",
    "Train the adapter again with PEFT 0.18 or later, or compare its answers with those of its "
    "training and accept AD370.",
)
SITE_UNSUPPORTED = Code(
    "AD371",
    "site-not-supported",
    Severity.ERROR,
    "The method cannot act on a module that the adapter adapts.",
    "Use adapter_config.json and weights of the same training.",
)
FOREIGN_UNCLEAR = Code(
    "AD372",
    "foreign-config-unclear",
    Severity.ERROR,
    "The config of another program's adapter does not say what was computed.",
    "Write the value that was used in training into adapter_config.json.",
)
FOREIGN_TENSOR = Code(
    "AD373",
    "foreign-tensor-unread",
    Severity.ERROR,
    "Another program's adapter has weights without an equivalent in PEFT's format.",
    "Fuse the adapter into its base with `mlx_lm.fuse` and use the result as a base.",
)
FOREIGN_NOTED = Code(
    "AD374",
    "foreign-adapter-noted",
    Severity.WARNING,
    "The adapter was adjusted while it was read.",
    "No action is needed. Next time, save the adapter from the model inside the wrapper.",
)
TOKEN_OUTSIDE = Code(
    "AD375",
    "token-outside-vocabulary",
    Severity.ERROR,
    "The adapter replaces rows that the base's embedding does not have.",
    "Resize the base's embeddings as for the training, or use the base of the training.",
)
PARAMETER_MISSING = Code(
    "AD376",
    "parameter-not-in-base",
    Severity.ERROR,
    "target_parameters names a parameter that the base does not have.",
    "Train the adapter with the version of transformers that loads the base.",
)
WEIGHT_QUANTISED = Code(
    "AD377",
    "quantised-weight-needed",
    Severity.UNCHECKED,
    "The adapter needs the base's own weights, and the base is quantised.",
    "Use the base without quantisation, or a plain LoRA.",
)
ADAPTER_SHARDS = Code(
    "AD378",
    "adapter-shards",
    Severity.ERROR,
    "The shards of an adapter are incomplete, or do not belong together.",
    "Fetch all shards again, from the same saving.",
)
RECORD_OTHER_BASE = Code(
    "AD380",
    "saved-on-another-base",
    Severity.ERROR,
    "The adapter's file records another base than this one.",
    "Use the base that it was trained on, or train the adapter again on this one.",
)
RECORD_UNCHECKED = Code(
    "AD381",
    "saved-on-base-unchecked",
    Severity.UNCHECKED,
    "Cannot verify that the base is the one that the adapter's file records.",
    "If it is the same base, accept the code (--accept AD381).",
)
RECORD_UNREADABLE = Code(
    "AD382",
    "base-record-unreadable",
    Severity.UNCHECKED,
    "Cannot read what the adapter's file records of its base.",
    "Update adapterdock, or accept the code (--accept AD382) if you know that the base is right.",
)
PROMPT_TASK = Code(
    "AD385",
    "prompt-task",
    Severity.ERROR,
    "The adapter's virtual tokens are for another task or another kind of model.",
    "Use the base that the adapter was trained on. For other tasks, use PEFT itself.",
)
PROMPT_SHAPE = Code(
    "AD386",
    "prompt-shape",
    Severity.ERROR,
    "The adapter's virtual tokens do not match its own config.",
    "Save or upload the adapter again, config and weights together.",
)
PROMPT_MISFIT = Code(
    "AD387",
    "prompt-misfit",
    Severity.ERROR,
    "The adapter's virtual tokens have another size than the base needs.",
    "Use the base that the adapter was trained on.",
)
PEFT_SHAPES_UNCHECKED = Code(
    "AD390",
    "peft-shapes-unchecked",
    Severity.UNCHECKED,
    "Only PEFT knows whether the tensors of this method fit.",
    "Run `adapterdock validate --deep`, and `adapterdock lock --accept AD390`.",
)
PEFT_TENSORS = Code(
    "AD391",
    "peft-tensors",
    Severity.ERROR,
    "The file's tensors are not those that PEFT makes from its config on this base.",
    "Use adapter_config.json and weights of the same training.",
)
PEFT_REFUSES = Code(
    "AD392",
    "peft-refuses",
    Severity.ERROR,
    "PEFT cannot make this adapter's layers on this base.",
    "Correct what PEFT reports, or use the base that the adapter was trained on.",
)
CONFIG_OF_OTHERS = Code(
    "AD398",
    "config-of-others",
    Severity.UNCHECKED,
    "The adapter's config is not the one that its weights were saved with.",
    "Save the adapter again, or restore the config of these weights. If the config was changed on "
    "purpose, accept AD398, and save the adapter to record the new config.",
)
