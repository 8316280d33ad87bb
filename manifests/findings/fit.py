"""Codes AD3xx: whether an adapter is whole, understood, and fits its base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

HEADER_MALFORMED = Code(
    id="AD301",
    name="header-malformed",
    severity=Severity.ERROR,
    summary="The file is not a safetensors file.",
    explanation=(
        "A safetensors file begins with the length of its header and the header itself, a JSON "
        "object. This file does not, so it is something else (a pickle, a Git LFS pointer, an "
        "error page) or it is damaged. Pickles are refused on principle: opening one runs code."
    ),
    example="adapter_model.safetensors that holds `version https://git-lfs.github.com/spec/v1`",
    fix="fetch the file again, or save the adapter again with safetensors",
)
HEADER_TENSOR = Code(
    id="AD302",
    name="header-tensor-invalid",
    severity=Severity.ERROR,
    summary="A tensor's entry in a safetensors header contradicts itself or its neighbours.",
    explanation=(
        "Each entry gives a dtype, a shape and where its bytes lie. The bytes must be as many as "
        "dtype and shape need, and the tensors must fill the data part without hole or overlap; "
        "otherwise two tensors could share bytes, or bytes could hide between them."
    ),
    example='{"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}',
    fix="the file was written wrongly: save it again with the safetensors library",
)
FILE_TRUNCATED = Code(
    id="AD303",
    name="file-size-wrong",
    severity=Severity.ERROR,
    summary="A safetensors file is shorter or longer than its header says.",
    explanation=(
        "The header says where the last tensor ends, and the file must end there. A shorter file "
        "is a download or an upload that broke off; a longer one was appended to."
    ),
    example="a 40 MB adapter_model.safetensors whose upload stopped at 31 MB",
    fix="upload or download the file again",
)

CONFIG_MALFORMED = Code(
    id="AD310",
    name="adapter-config-malformed",
    severity=Severity.ERROR,
    summary="adapter_config.json is not one JSON object.",
    explanation=(
        "The config is read strictly: UTF-8, one JSON object, no key twice, no NaN, and not "
        "larger than a config can be. Two readers of a sloppy file could read two things."
    ),
    example='{"r": 8, "r": 16, "peft_type": "LORA"}',
    fix="save the adapter again with PEFT's save_pretrained",
)
METHOD_MISSING = Code(
    id="AD311",
    name="method-not-named",
    severity=Severity.ERROR,
    summary="adapter_config.json does not say which method the adapter is.",
    explanation=(
        "PEFT writes the method as `peft_type`. Without it the tensors mean nothing: the folder "
        "may belong to another library, or the file was written by hand."
    ),
    example='{"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}',
    fix='give the method\'s name in PEFT\'s spelling, such as "peft_type": "LORA"',
)
METHOD_UNSUPPORTED = Code(
    id="AD312",
    name="method-not-supported",
    severity=Severity.ERROR,
    summary="The adapter's method cannot be attached here.",
    explanation=(
        "Every method stores and applies its tensors in its own way. Most are carried out here, "
        "others attach through PEFT (`pip install 'adapterdock[peft]'`); this one is known to "
        "neither, or it acts on the model as a whole in a way that would touch the base or that "
        "needs more than a call says. docs/reference/methods.md lists every method with what "
        "becomes of it."
    ),
    example='"peft_type": "XLORA"',
    fix="use an adapter of another method, or load this one with PEFT itself",
)
OPTION_TYPE = Code(
    id="AD313",
    name="config-field-invalid",
    severity=Severity.ERROR,
    summary="A field of adapter_config.json holds a value of the wrong kind.",
    explanation=(
        "Each field that changes the computation is read strictly: a rank is a whole number above "
        "zero, an alpha is a number, targets are a pattern or a list of names, and so on."
    ),
    example='"r": "8"',
    fix="correct the field, or save the adapter again with PEFT's save_pretrained",
)
OPTION_UNSUPPORTED = Code(
    id="AD314",
    name="config-field-not-supported",
    severity=Severity.ERROR,
    summary="A field of adapter_config.json asks for something that is not carried out.",
    explanation=(
        "The field changes what the adapter computes, and leaving it out would give another model "
        "than the one that was trained. So an adapter that sets it is refused; its neutral value "
        "(null, false, empty) passes."
    ),
    example='"use_dora": true',
    fix="use an adapter trained without this field, or load this one with PEFT itself",
)
OPTION_UNKNOWN = Code(
    id="AD315",
    name="config-field-unknown",
    severity=Severity.ERROR,
    summary="adapter_config.json sets a field that the adapter's method does not have.",
    explanation=(
        "The field is a known one misspelt, or one of another method. PEFT drops such fields with "
        "a warning and takes its default for the field that was meant. The result could be another "
        "model than the one that was trained, so it is an error. In the config of a new adapter "
        "every field that is not known is an error. A loaded adapter's field that nobody knows is "
        "unchecked instead (AD359)."
    ),
    example='"lora_alhpa": 32',
    fix="correct the field's name, or remove the field if it has no effect",
)
OPTION_UNKNOWN_NEUTRAL = Code(
    id="AD316",
    name="config-field-unknown-unset",
    severity=Severity.WARNING,
    summary="adapter_config.json has fields that are not known, all of them unset.",
    explanation=(
        "A newer PEFT writes every field that it has, also those that the adapter does not use. "
        "An unknown field that is null, false or empty asks for nothing, so it passes."
    ),
    example='"new_config": null',
    fix="nothing has to be done; upgrading adapterdock removes the warning",
)
OPTION_CONTRADICTION = Code(
    id="AD317",
    name="config-fields-contradict",
    severity=Severity.ERROR,
    summary="Two fields of adapter_config.json cannot stand together.",
    explanation=(
        "PEFT refuses these combinations as well: layers can only be picked where the targets are "
        "a list of names, naming the layers makes no sense without picking any, OFT is given by "
        "its blocks' number or their size, and AdaLoRA's rank_pattern by init_r booleans a module."
    ),
    example='"target_modules": ".*q_proj", "layers_to_transform": [0, 1]',
    fix="put the layers into the pattern, give the targets as a list; else save it with PEFT again",
)
INIT_CHANGES_BASE = Code(
    id="AD318",
    name="init-changed-the-base",
    severity=Severity.ERROR,
    summary="Training changed the base's weights, and the adapter only fits the changed base.",
    explanation=(
        "PiSSA, OLoRA, CorDA and LoRA-GA take the first factors out of the base's weights, and "
        "LoftQ replaces them by a quantised copy. An adapter saved without conversion belongs to "
        "that changed base; on the untouched one it computes something else. PEFT would change "
        "the base again while loading; here the base is never changed."
    ),
    example='"init_lora_weights": "pissa"',
    fix=(
        "convert it where it was trained: save_pretrained(path, "
        "path_initial_model_for_weight_conversion=...) writes a plain LoRA"
    ),
)
PATTERN_INVALID = Code(
    id="AD319",
    name="pattern-invalid",
    severity=Severity.ERROR,
    summary="A pattern in adapter_config.json is no regular expression.",
    explanation=(
        "PEFT reads a text `target_modules` or `exclude_modules`, the keys of `rank_pattern` and "
        "`alpha_pattern`, `layers_pattern` and `modules_to_save` as regular expressions of "
        "Python's `re`. This one does not compile there."
    ),
    example='"target_modules": "model.layers.(\\\\d+.q_proj"',
    fix="correct the pattern, or give the modules as a list of names",
)
PATTERN_TOO_SLOW = Code(
    id="AD320",
    name="pattern-too-slow",
    severity=Severity.ERROR,
    summary="The patterns in adapter_config.json take too long to match.",
    explanation=(
        "Some regular expressions take longer than anyone can wait. Adapters come from strangers, "
        "so all patterns of one adapter share two seconds, and real ones take milliseconds."
    ),
    example='"target_modules": "(a+)+$"',
    fix="give the modules as a list of names",
)
PEFT_NEWER = Code(
    id="AD321",
    name="peft-version-newer",
    severity=Severity.WARNING,
    summary="The adapter was written by a PEFT that is newer than the ones known here.",
    explanation=(
        "The file format rarely changes, and every field was understood or the adapter was "
        "refused; but the meaning of a known field could have changed."
    ),
    example='"peft_version": "0.40.0"',
    fix="upgrade adapterdock if a release knows this version",
)
PEFT_VERSION_INVALID = Code(
    id="AD322",
    name="peft-version-invalid",
    severity=Severity.ERROR,
    summary="peft_version is no version number.",
    explanation="PEFT writes its own version, such as 0.21.2 or 0.22.0.dev0@abc1234, or nothing.",
    example='"peft_version": "latest"',
    fix="remove the field, or write the version of PEFT that saved the adapter",
)

EMPTY = Code(
    id="AD330",
    name="adapter-empty",
    severity=Severity.ERROR,
    summary="The adapter would change nothing.",
    explanation=(
        "The file has no tensor that acts anywhere, or every scale is zero. Attaching it would "
        "give the base's own answers under another name."
    ),
    example="an adapter_model.safetensors without tensors, or lora_alpha: 0",
    fix="look whether the right file was uploaded",
)
HALF_PRESENT = Code(
    id="AD331",
    name="factors-incomplete",
    severity=Severity.ERROR,
    summary="A module has one factor of its LoRA and not the other.",
    explanation=(
        "The change of a weight is the product of lora_A and lora_B. With only one in the file "
        "nothing can be computed; the file was cut or its keys were renamed wrongly. PEFT loads "
        "such a file and leaves the missing factor at its initial value."
    ),
    example="...q_proj.lora_A.weight without ...q_proj.lora_B.weight",
    fix="save or upload the adapter again",
)
TENSOR_UNEXPECTED = Code(
    id="AD332",
    name="tensor-unexpected",
    severity=Severity.ERROR,
    summary="The file has tensors that belong nowhere.",
    explanation=(
        "Every tensor must be a factor of the method, a part of a module in `modules_to_save`, a "
        "trained bias that `bias` allows, or a whole embedding. PEFT and others skip the rest in "
        "silence, which gives a half-attached adapter."
    ),
    example="lora_unet_down_blocks_0.lora_down.weight (another trainer's spelling)",
    fix="convert the file to PEFT's names (base_model.model.<module>.lora_A.weight)",
)
TARGETS_WITHOUT_TENSORS = Code(
    id="AD333",
    name="targets-without-tensors",
    severity=Severity.ERROR,
    summary="The config selects modules of the base for which the file has no tensors.",
    explanation=(
        "target_modules, exclude_modules and the layer fields say what was adapted. Modules that "
        "they select in this base have nothing in the file: it is incomplete, or the adapter was "
        "trained on another base (fewer layers, no vision tower, ...)."
    ),
    example='"target_modules": ["q_proj", "v_proj"] and only q_proj in the file',
    fix="check that this is the adapter's base and that the file is whole",
)
TENSORS_WITHOUT_TARGET = Code(
    id="AD334",
    name="tensors-without-target",
    severity=Severity.ERROR,
    summary="The file has factors for modules that the config does not select.",
    explanation=(
        "Config and file contradict each other: one of them was edited or belongs to another "
        "adapter. PEFT drops such tensors in silence."
    ),
    example='"target_modules": ["q_proj"] and v_proj.lora_A.weight in the file',
    fix="correct target_modules, exclude_modules or the layer fields, or the file",
)
TARGETS_UNDECLARED = Code(
    id="AD335",
    name="targets-not-declared",
    severity=Severity.UNCHECKED,
    summary="adapter_config.json does not say which modules are adapted.",
    explanation=(
        "With target_modules at null PEFT takes a default by the kind of model, from a table that "
        "changes between its versions. The file's tensors are used, but whether some are missing "
        "cannot be told."
    ),
    example='"target_modules": null',
    fix="write the names of the adapted modules into target_modules",
)
RANK_MISMATCH = Code(
    id="AD336",
    name="rank-mismatch",
    severity=Severity.ERROR,
    summary="The tensors have another rank than the config gives.",
    explanation=(
        "The rank is the first dimension of lora_A and the second of lora_B, and the config gives "
        "it by `r` or, for some modules, by `rank_pattern`. The scale is computed from it, so a "
        "config that disagrees with its tensors gives a wrong scale."
    ),
    example='"r": 8 and a lora_A.weight of shape (16, 576)',
    fix="correct r or rank_pattern, and make sure that lora_alpha belongs to the same run",
)
TENSOR_DTYPE = Code(
    id="AD337",
    name="tensor-dtype",
    severity=Severity.ERROR,
    summary="An adapter's tensor is not of an ordinary float dtype.",
    explanation=(
        "Factors are multiplied with activations, so they must be F16, BF16, F32 or F64. Integers "
        "and 8-bit floats need scales that this format does not have: the file was quantised by "
        "some tool, or packed by a quantised base."
    ),
    example="lora_A.weight with dtype I8",
    fix="save the adapter in bfloat16 or float32",
)
FAN_IN_FAN_OUT = Code(
    id="AD338",
    name="fan-in-fan-out-disagrees",
    severity=Severity.WARNING,
    summary="fan_in_fan_out does not say what the base's modules are.",
    explanation=(
        "The field says whether weights are stored transposed, as GPT-2's Conv1D does. What counts "
        "is the module itself; like PEFT, we follow the module and say so."
    ),
    example='"fan_in_fan_out": false on GPT-2',
    fix="nothing has to be done; correcting the field removes the warning",
)
SHAPE_INVALID = Code(
    id="AD339",
    name="factor-shape-invalid",
    severity=Severity.ERROR,
    summary="A factor has a shape that no factor can have.",
    explanation=(
        "lora_A and lora_B are matrices (for convolutions, kernels) without an empty dimension. "
        "One-dimensional or empty ones are shards that were not gathered before saving (DeepSpeed "
        "ZeRO-3, FSDP)."
    ),
    example="lora_A.weight of shape (0,)",
    fix="gather the parameters before save_pretrained, and save again",
)

BASE_UNDECLARED = Code(
    id="AD340",
    name="base-not-declared",
    severity=Severity.UNCHECKED,
    summary="There is no base to check the adapter against.",
    explanation=(
        "The manifest names no base model, so only the adapter itself was checked. Whether it fits "
        "is checked when it is attached to a loaded model."
    ),
    example="base: {}",
    fix="name the base in the manifest: base.model",
)
ARCHITECTURE_UNKNOWN = Code(
    id="AD341",
    name="architecture-unknown",
    severity=Severity.UNCHECKED,
    summary="The module names of this architecture are not known.",
    explanation=(
        "Names on disk and names in the running model differ for some architectures. The table of "
        "architectures knows the classes of one version of transformers "
        "(docs/reference/architectures.md lists them); names are not guessed for others: a class "
        "from the repository's own code, a newer one, or a checkpoint whose tensors are not those "
        "of the class that it names."
    ),
    example='"architectures": ["MyCompanyForCausalLM"]',
    fix=(
        "name the model's class of transformers under `architectures` in config.json; ask "
        "transformers with `adapterdock validate --deep`; for a class from a repository's own code "
        "pin the base to a commit and set base.trust_remote_code: true; or accept this code: the "
        "loaded model is asked before anything is attached"
    ),
)
MODULE_MISSING = Code(
    id="AD342",
    name="module-not-in-base",
    severity=Severity.ERROR,
    summary="The adapter has tensors for modules that the base does not have.",
    explanation=(
        "Loaded anyway, these tensors would match nothing and the answers would be the base's own. "
        "The adapter was made for another model, for more layers, or for another version of the "
        "model's code."
    ),
    example="model.layers.31.self_attn.q_proj on a model of 30 layers",
    fix="use the base that the adapter was trained on",
)
SIZE_MISMATCH = Code(
    id="AD343",
    name="size-mismatch",
    severity=Severity.ERROR,
    summary="The adapter's tensors have other sizes than the base's modules.",
    explanation=(
        "lora_A takes what the module takes and lora_B gives what it gives: (rank, in) and "
        "(out, rank). Other sizes mean another base."
    ),
    example="a lora_A.weight of (8, 2048) on a module with 576 inputs",
    fix="use the base that the adapter was trained on",
)
KIND_MISMATCH = Code(
    id="AD344",
    name="module-kind-mismatch",
    severity=Severity.ERROR,
    summary="The adapter's tensors are for another kind of module than the base has there.",
    explanation=(
        "lora_A and lora_B are for linear layers and convolutions, lora_embedding_A and _B for "
        "embeddings; norms and containers cannot carry a LoRA at all."
    ),
    example="model.embed_tokens.lora_A.weight",
    fix="use the base, and the version of its code, that the adapter was trained on",
)
SIZE_UNKNOWN = Code(
    id="AD345",
    name="size-unknown",
    severity=Severity.UNCHECKED,
    summary="The sizes of a base's module are not known.",
    explanation=(
        "The module exists, but its in and out sizes cannot be told from the base's files (a "
        "quantised weight is packed, for example)."
    ),
    example="a base quantised to 4 bits",
    fix="accept this code: the loaded model is asked before anything is attached",
)
TIED_WEIGHT = Code(
    id="AD346",
    name="tied-weight-adapted",
    severity=Severity.WARNING,
    summary="The adapter acts on one of two modules that share their weight.",
    explanation=(
        "Input and output embeddings of this base are one weight. The adapter acts on one of them "
        "only, as it did in training; merging it into the weight would change both, so a merged "
        "model must be untied. Names, sizes and ranks were checked as for any other module."
    ),
    example='"target_modules": ["lm_head"] on a base with tie_word_embeddings',
    fix="nothing has to be done for attaching; see `ensure_weight_tying` in PEFT for training",
)
VOCABULARY = Code(
    id="AD347",
    name="vocabulary-mismatch",
    severity=Severity.ERROR,
    summary="The adapter was made with another vocabulary size than the base has.",
    explanation=(
        "Tokens were added in training and the embeddings resized. Without the same number of "
        "rows the adapter's embeddings do not fit, and the added tokens have no row at all."
    ),
    example="a tokenizer with 49 153 ids beside a base with 49 152 rows",
    fix="use a base whose embeddings were resized in the same way, as it was in training",
)
TOKENS_ADDED = Code(
    id="AD348",
    name="tokens-added",
    severity=Severity.WARNING,
    summary="The adapter's tokenizer has tokens that the base's does not have.",
    explanation=(
        "The base has rows for them, so nothing fails; but use the adapter's tokenizer, or these "
        "tokens will not be recognised in the text."
    ),
    example='"<tool_call>" in the adapter\'s tokenizer.json only',
    fix="load the tokenizer from the adapter's folder",
)
SAVED_MODULE = Code(
    id="AD349",
    name="saved-module-mismatch",
    severity=Severity.ERROR,
    summary="A module in modules_to_save is not stored whole, or does not fit the base.",
    explanation=(
        "Such a module is trained and stored in full and takes the place of the base's. All of its "
        "parameters must be in the file, with the shapes that the base has."
    ),
    example="score.weight of (5, 576) where the base has 2 labels",
    fix="load the base in the form in which it was trained (same class, same number of labels)",
)
SAVED_NAME_UNUSED = Code(
    id="AD350",
    name="saved-name-unused",
    severity=Severity.WARNING,
    summary="A name in modules_to_save is no module of the base.",
    explanation=(
        "PEFT ignores names that match nothing. If the module should have been trained, it was "
        "not: the file has no tensors for it either."
    ),
    example='"modules_to_save": ["embed_tokns"]',
    fix="nothing has to be done if the name was never meant for this base",
)
BIAS_MISMATCH = Code(
    id="AD351",
    name="bias-mismatch",
    severity=Severity.ERROR,
    summary="The trained biases are not those that the config and the base call for.",
    explanation=(
        "With bias: all every bias of the base is trained and stored, with lora_only those of the "
        "adapted modules. A missing one means that the base's own would be used instead."
    ),
    example='"bias": "all" and a file without any bias',
    fix="save the adapter again with PEFT's save_pretrained, which stores them",
)
BASE_QUANTISED = Code(
    id="AD352",
    name="base-quantised",
    severity=Severity.WARNING,
    summary="The base's checkpoint is quantised.",
    explanation=(
        "An adapter does not record whether it was trained on a quantised base. On another "
        "precision than in training its answers differ a little."
    ),
    example='"quantization_config": {"quant_method": "gptq"} in the base\'s config.json',
    fix="nothing has to be done if the adapter was trained on this checkpoint",
)
ARCHITECTURE_MISMATCH = Code(
    id="AD353",
    name="architecture-mismatch",
    severity=Severity.ERROR,
    summary="The adapter records that it was trained on another architecture.",
    explanation=(
        "PEFT may note the class of the base model in `auto_mapping`. It is of another family than "
        "this base; equal names and shapes do not make the two the same."
    ),
    example='"auto_mapping": {"base_model_class": "MistralForCausalLM"} on a Llama',
    fix="use the base that the adapter was trained on",
)
EMBEDDING_MISMATCH = Code(
    id="AD354",
    name="embedding-mismatch",
    severity=Severity.ERROR,
    summary="An embedding stored with the adapter does not fit the base's.",
    explanation=(
        "PEFT stores whole input and output embeddings when they were resized or adapted. Stored "
        "ones take the place of the base's, so their width must be the base's."
    ),
    example="embed_tokens.weight of (49152, 2048) on a base with hidden size 576",
    fix="use the base that the adapter was trained on",
)
RECORDED_OTHER = Code(
    id="AD360",
    name="recorded-base-differs",
    severity=Severity.ERROR,
    summary="The adapter records another base than the manifest's.",
    explanation=(
        "adapter_config.json says on which model the adapter was trained. A base of the same shape "
        "with other weights takes it without any error and answers wrongly, so the names are "
        "compared. Mirrors and renamed copies of one base are declared in base.aliases."
    ),
    example='"base_model_name_or_path": "org/other-7b" under base.model: hf://org/model-7b',
    fix="if both are the same model, list the recorded name in base.aliases",
)
RECORDED_SHAPE = Code(
    id="AD361",
    name="recorded-base-other-shape",
    severity=Severity.ERROR,
    summary="The base that the adapter records has another architecture or size.",
    explanation=(
        "The recorded base could be read, and it is not the manifest's: its kind, its hidden size "
        "or its number of layers differs."
    ),
    example="trained on a model with 24 layers, declared for one with 30",
    fix="use the base that the adapter was trained on",
)
RECORDED_GONE = Code(
    id="AD362",
    name="recorded-base-not-found",
    severity=Severity.WARNING,
    summary="The adapter records a local path as its base, which does not exist here.",
    explanation=(
        "Trainers that load from a folder record its path, which means nothing on another machine. "
        "Shapes were checked; whether it is the same base cannot be told from the path."
    ),
    example='"base_model_name_or_path": "/scratch/run7/base"',
    fix="if it is the manifest's base, list the path in base.aliases",
)
RECORDED_NONE = Code(
    id="AD363",
    name="recorded-base-missing",
    severity=Severity.WARNING,
    summary="The adapter does not record its base.",
    explanation=(
        "Without base_model_name_or_path only names and shapes can be compared, which do not tell "
        "two bases of one shape apart."
    ),
    example='"base_model_name_or_path": null',
    fix="write the base's Hub id into adapter_config.json",
)
RECORDED_UNCONFIRMED = Code(
    id="AD364",
    name="recorded-base-unconfirmed",
    severity=Severity.UNCHECKED,
    summary="The adapter records a Hub model, and the manifest's base is known by no Hub id.",
    explanation=(
        "The manifest's base is a folder or a bucket, so its name cannot be compared with the "
        "recorded one, and a base of the same shape would pass every other check."
    ),
    example='"base_model_name_or_path": "org/model-7b" under base.model: ./models/base',
    fix="if it is the same model, list the recorded name in base.aliases",
)
RECORDED_UNCOMPARED = Code(
    id="AD366",
    name="recorded-base-uncompared",
    severity=Severity.WARNING,
    summary="The adapter records its base, and nothing is declared that it could be compared with.",
    explanation=(
        "With `base: {}` the caller brings the model and answers for its being the right one. "
        "Fit is checked against the model itself; another base of the same shape cannot be told."
    ),
    example='adapterdock.attach(model, {"version": 1, "base": {}, ...})',
    fix="list the model's Hub id in base.aliases, or declare base.fingerprint",
)
RECORDED_REVISION = Code(
    id="AD365",
    name="recorded-revision-differs",
    severity=Severity.WARNING,
    summary="The adapter records another revision of the base than the one in use.",
    explanation=(
        "Later commits of a model repository often change only its card, but they may change the "
        "weights or the config."
    ),
    example='"revision": "<one commit>" under a base pinned to another',
    fix="pin base.model to the recorded revision, or compare the two commits",
)

ALPHA_AMBIGUOUS = Code(
    id="AD323",
    name="alpha-ambiguous",
    severity=Severity.WARNING,
    summary="Several patterns of alpha_pattern match one module and give different alphas.",
    explanation=(
        "The first pattern that matches wins, but PEFT sorts the patterns when it saves them, so "
        "the order of the file need not be the order of the training. PEFT itself takes the first "
        "of the file when it loads, and so do we; the scale may not be the one that was trained."
    ),
    example='"alpha_pattern": {".*_proj": 24, "model.layers.0.self_attn.q_proj": 5}',
    fix="make the patterns exclude each other, with the alphas of the training",
)
PATTERN_UNUSED = Code(
    id="AD355",
    name="pattern-matches-nothing",
    severity=Severity.WARNING,
    summary="A rank, an alpha, a layer or a parameter of the config is for no adapted module.",
    explanation=(
        "PEFT ignores an entry of rank_pattern, alpha_pattern, layers_to_transform or "
        "target_parameters that matches nothing, and so is it here. A wrong rank shows in the "
        "shapes, but a misspelt name in alpha_pattern only leaves a module with the scale of all "
        "others. Where no entry of target_parameters matches, or factors are left without a "
        "place, it is an error (AD376)."
    ),
    example='"alpha_pattern": {"q_porj": 32}',
    fix="correct the entry, or remove it if it was never meant for this adapter",
)

SITE_UNSUPPORTED = Code(
    id="AD371",
    name="site-not-supported",
    severity=Severity.ERROR,
    summary="The method cannot sit on a module that the adapter adapts, as file and config say it.",
    explanation=(
        "The module is of a kind for which PEFT's method has no arithmetic (IA3 at a convolution "
        "of one dimension, say), or the tensors in the file are others than those that the config "
        "makes at such a module, so that one of the two belongs to another adapter."
    ),
    example='"use_effective_conv2d": true beside a convolution without hada_t1',
    fix="put adapter_config.json and the weights of one and the same training together",
)
OFT_FORMULA_CHANGED = Code(
    id="AD370",
    name="oft-formula-changed",
    severity=Severity.UNCHECKED,
    summary="The OFT adapter was trained with a Cayley-Neumann series that PEFT has changed since.",
    explanation=(
        "PEFT 0.18 changed the last term of the series, and began to write peft_version. An "
        "adapter of an earlier version, or one that does not say, was trained with the old series. "
        "The new one is computed here, as today's PEFT does with such a file (it warns); the "
        "difference is small where the rotation is small, and nothing in the file tells."
    ),
    example='"use_cayley_neumann": true without "peft_version"',
    fix=(
        "train the adapter again with PEFT 0.18 or later, or compare its answers with those of "
        "its training and accept AD370"
    ),
)

TOKEN_OUTSIDE = Code(
    id="AD375",
    name="token-outside-vocabulary",
    severity=Severity.ERROR,
    summary="The adapter replaces rows that the base's embedding does not have.",
    explanation=(
        "Trainable tokens are rows of the embedding, by index. An index at or above the number of "
        "rows belongs to a token that was added before training; this base was not resized for it. "
        "An index below 0 is none."
    ),
    example='"trainable_token_indices": [49152] for a base of 49152 rows',
    fix="resize the base's embeddings as for the training, or use the base that was trained on",
)
PARAMETER_MISSING = Code(
    id="AD376",
    name="parameter-not-in-base",
    severity=Severity.ERROR,
    summary="target_parameters names a parameter that the base does not have.",
    explanation=(
        "target_parameters selects parameters by the end of their names in the running model. "
        "transformers 5 fuses the experts of most mixtures into one parameter for all of them, so "
        "names of older versions no longer exist."
    ),
    example='"target_parameters": ["experts.w1"] for a base with experts.gate_up_proj',
    fix="train the adapter with the version of transformers that loads the base",
)

WEIGHT_QUANTISED = Code(
    id="AD377",
    name="quantised-weight-needed",
    severity=Severity.UNCHECKED,
    summary="The adapter needs the base's own weights, and the base is quantised.",
    explanation=(
        "DoRA divides by the norm of the base's weight, target_parameters adds to the weight "
        "itself, and a module in modules_to_save takes its place, so none of them can act on a "
        "weight that only exists in a packed form. Some formats are unpacked when the base is "
        "loaded (FP8 and mxfp4 on a CPU). Attaching is refused if such a weight stays packed."
    ),
    example="a DoRA adapter for a base with quantization_config in its config.json",
    fix="use the base without quantisation, or a plain LoRA",
)
PROMPT_TASK = Code(
    id="AD385",
    name="prompt-task",
    severity=Severity.ERROR,
    summary="The adapter's virtual tokens are for a task or a kind of model that is not this one.",
    explanation=(
        "Where virtual tokens go depends on `task_type`: in front of a decoder's tokens, of an "
        "encoder's, or into the decoder's keys and values. Those of CAUSAL_LM, SEQ_2_SEQ_LM, "
        "SEQ_CLS and TOKEN_CLS are understood. SEQ_2_SEQ_LM is for models with an encoder and a "
        "decoder, the others for models without."
    ),
    example='"task_type": "QUESTION_ANS" in the adapter_config.json of a prompt tuning',
    fix="use the base that the adapter was trained on; other tasks need PEFT itself",
)
PROMPT_SHAPE = Code(
    id="AD386",
    name="prompt-shape",
    severity=Severity.ERROR,
    summary="The adapter's virtual tokens are not what its own config says.",
    explanation=(
        "`prompt_embeddings` has one row for each virtual token (two for models with an encoder "
        "and a decoder), as wide as `token_dim`; for prefix tuning a row holds the keys and "
        "values of every layer. The file was cut, or belongs to another adapter_config.json."
    ),
    example='"num_virtual_tokens": 20 beside prompt_embeddings of 8 rows',
    fix="save or upload the adapter again, config and weights together",
)
PROMPT_MISFIT = Code(
    id="AD387",
    name="prompt-misfit",
    severity=Severity.ERROR,
    summary="The adapter's virtual tokens have another size than the base needs.",
    explanation=(
        "Virtual tokens stand beside the base's own, so they must be as wide as its token "
        "embedding; a prefix must have the base's number of layers, of key and value heads, and "
        "the size of its heads. Models whose layers differ in these cannot have a prefix here."
    ),
    example="token_dim: 2048 over a base with a hidden size of 4096",
    fix="use the base that the adapter was trained on",
)

RECORD_OTHER_BASE = Code(
    id="AD380",
    name="saved-on-another-base",
    severity=Severity.ERROR,
    summary="The adapter's file records the base that it was saved on, and this is another.",
    explanation=(
        "An adapter that adapterdock saved carries the fingerprint of its base. The base here has "
        "other tensors, another config, or other values: a model of the same shape, perhaps a "
        "later training of the same one. On it the adapter would answer, and wrongly."
    ),
    example="an adapter saved on the base model, loaded onto its chat version",
    fix="use the base that it was trained on, or train the adapter again on this one",
)
RECORD_UNCHECKED = Code(
    id="AD381",
    name="saved-on-base-unchecked",
    severity=Severity.UNCHECKED,
    summary="Whether the base is the one that the adapter's file records could not be told.",
    explanation=(
        "The adapter's file carries the fingerprint of its base, and a level of it could not be "
        "measured on the base here: its weights are quantised, for one."
    ),
    example="an adapter that was saved on a bfloat16 base, loaded onto a quantised copy",
    fix="if it is the same base, accept the code (--accept AD381)",
)
RECORD_UNREADABLE = Code(
    id="AD382",
    name="base-record-unreadable",
    severity=Severity.UNCHECKED,
    summary="What the adapter's file records of its base cannot be read.",
    explanation=(
        "The metadata entry `adapterdock.base_fingerprint` holds the JSON of a fingerprint. This "
        "one does not: it was edited, or a later version of adapterdock wrote it."
    ),
    example='"adapterdock.base_fingerprint": "{}"',
    fix="update adapterdock, or accept the code (--accept AD382) if the base is known to be right",
)
PEFT_SHAPES_UNCHECKED = Code(
    id="AD390",
    name="peft-shapes-unchecked",
    severity=Severity.UNCHECKED,
    summary="Whether the tensors of a method that attaches through PEFT fit is known to PEFT.",
    explanation=(
        "The method has no native file here. That its modules exist in the base, that the config "
        "selects them and that no tensor is left over was checked; which tensors there must be at "
        "a module, and of which shapes, only PEFT's own layers know. `validate --deep` asks them "
        "where adapterdock[peft] is installed. `load`, `attach` and `load_adapter` ask them "
        "always, before anything is attached, so there nothing has to be accepted; a lock is made "
        "without PEFT, so it records that a person has accepted this."
    ),
    example='an adapter with "peft_type": "BOFT"',
    fix="run `adapterdock validate --deep`, and `adapterdock lock --accept AD390`",
)
PEFT_TENSORS = Code(
    id="AD391",
    name="peft-tensors",
    severity=Severity.ERROR,
    summary="The file's tensors are not those that PEFT makes of its config at this base.",
    explanation=(
        "PEFT was asked for this adapter's layers at these modules. It would store other tensors, "
        "or tensors of other shapes, so the config and the weights belong to different trainings, "
        "or the adapter was made for a base of other sizes, or by another version of PEFT."
    ),
    example='"r": 16 beside tensors of an HRA adapter of rank 8',
    fix="put adapter_config.json and the weights of one and the same training together",
)
PEFT_REFUSES = Code(
    id="AD392",
    name="peft-refuses",
    severity=Severity.ERROR,
    summary="PEFT cannot make this adapter's layers at this base.",
    explanation=(
        "What PEFT said is in the finding: a value of the config that it does not take, a module "
        "of a kind that the method cannot adapt, sizes that do not divide each other."
    ),
    example="a C3A adapter with block_size: 256 for a module of 576 inputs",
    fix="correct what PEFT says, or use the base that the adapter was trained on",
)
OPTION_UNCHECKED = Code(
    id="AD359",
    name="config-field-unchecked",
    severity=Severity.UNCHECKED,
    summary="adapter_config.json sets a field that nobody knows.",
    explanation=(
        "The field is none of this method's, of another method's, or of the other trainers that "
        "are known here. A newer PEFT or another trainer wrote it. PEFT ignores it with a warning. "
        "Whether it changes what the adapter computes cannot be told, so a person who knows the "
        "trainer has to decide."
    ),
    example='"new_scaling": 0.5',
    fix="Upgrade adapterdock, or accept the code (--accept AD359) if it acts in training only.",
)
OPTION_OF_TRAINER = Code(
    id="AD367",
    name="config-field-of-trainer",
    severity=Severity.WARNING,
    summary="adapter_config.json has fields of another trainer that act in training only.",
    explanation=(
        "Other trainers write fields of their own beside PEFT's: the learning rates of LoRA+, the "
        "dtype while training. These are known, and they change nothing once the adapter is "
        "trained. Training that continues here does not use them."
    ),
    example='"lorap_emb_lr": 1e-06',
    fix="Nothing has to be done. Set learning rates in your own optimizer if you train it further.",
)
ACTIVATION_UNKNOWN = Code(
    id="AD368",
    name="activation-unknown",
    severity=Severity.ERROR,
    summary="Cannot tell from which token on an aLoRA acts.",
    explanation=(
        "An aLoRA acts from the last occurrence of its invocation tokens in each row on. So a call "
        "needs `input_ids`, and a module must see the tokens of each row in order. PEFT turns such "
        "an adapter off with a warning where it has no input_ids. A cache that the base made may "
        "be used up to the invocation, not beyond it."
    ),
    example="model(inputs_embeds=...) while an aLoRA is active",
    fix="Pass input_ids, and use the adapter on modules that see the rows' tokens.",
)
FOREIGN_FORMAT = Code(
    id="AD369",
    name="foreign-adapter-format",
    severity=Severity.ERROR,
    summary="The source holds an adapter in a format that is not read.",
    explanation=(
        "Adapters are read as PEFT writes them (adapter_config.json and "
        "adapter_model.safetensors), and as mlx-lm does (adapters.safetensors). Other programs "
        "write other files, with other names and other scales. The message says which program "
        "wrote this one, and the hint how to get PEFT's format from it."
    ),
    example="a folder with pytorch_lora_weights.safetensors, as diffusers writes it",
    fix="convert the adapter to PEFT's format with the program that wrote it",
)
FOREIGN_UNCLEAR = Code(
    id="AD372",
    name="foreign-config-unclear",
    severity=Severity.ERROR,
    summary="The config of another program's adapter does not say what was computed.",
    explanation=(
        "An adapter of mlx-lm is read from `lora_parameters` (rank, scale, dropout, keys), "
        "`num_layers` and `fine_tune_type`. A value that is missing, of the wrong kind, or that "
        "versions of mlx-lm read in different ways is not guessed: the adapter would load and "
        "give other answers than the trained one."
    ),
    example='"lora_parameters": {"rank": 8, "alpha": 16}   # and no scale',
    fix="write the value that was used in training into adapter_config.json",
)
FOREIGN_TENSOR = Code(
    id="AD373",
    name="foreign-tensor-unread",
    severity=Severity.ERROR,
    summary="Another program's adapter holds weights that nothing in PEFT's format equals.",
    explanation=(
        "Of mlx-lm's adapters the factors of linear layers, of embeddings and of experts in a "
        "`switch_mlp` are read, and the sizes of DoRA of linear layers. DoRA of an embedding, "
        "LoRA of an embedding whose weight is the output layer too (mlx-lm adapts both at once), "
        "experts elsewhere and whole weights (`fine_tune_type: full`) have no exact counterpart."
    ),
    example="model.layers.0.mlp.experts.gate_proj.lora_b of (32, 2880, 8)",
    fix="fuse the adapter into its base with `mlx_lm.fuse` and use the result as a base",
)
FOREIGN_NOTED = Code(
    id="AD374",
    name="foreign-adapter-noted",
    severity=Severity.WARNING,
    summary="The adapter was not read letter by letter as it is written.",
    explanation=(
        "Names that torch.compile, FSDP, activation checkpointing or DistributedDataParallel put "
        "between the parts of a module's path are left out: the adapter is the same without them. "
        "An adapter of mlx-lm 0.19 to 0.21 may have factors in more layers than `num_layers` "
        "says, because these versions trained all of them; all are used."
    ),
    example="base_model.model._orig_mod.model.layers.0.self_attn.q_proj.lora_A.weight",
    fix="nothing has to be done; save the adapter from the model inside the wrapper next time",
)
ADAPTER_SHARDS = Code(
    id="AD378",
    name="adapter-shards",
    severity=Severity.ERROR,
    summary="The shards of an adapter are not all there, or do not belong together.",
    explanation=(
        "transformers splits a large adapter into adapter_model-00001-of-0000N.safetensors and so "
        "on. They are read as one file, when each of the N is there and no tensor is in two."
    ),
    example="adapter_model-00001-of-00002.safetensors alone",
    fix="fetch all shards again, from one and the same saving",
)
OLDER_LAYOUT_UNCONVERTIBLE = Code(
    id="AD304",
    name="older-layout-unconvertible",
    severity=Severity.ERROR,
    summary="The adapter is for modules that transformers has fused or split since.",
    explanation=(
        "Later versions of transformers make one weight of several (the experts of a mixture, each "
        "a module of its own before) or several of one. LoRA's factors are converted exactly. "
        "Those of this adapter cannot be: the method has no form for a part of a weight, or the "
        "version moves single rows, or the sizes are not those of the base."
    ),
    example="an IA3 adapter for `mlp.experts.0.gate_proj` on a Mixtral of today",
    fix="merge it with the transformers that it was made with, or train it anew",
)
OLDER_NAMES = Code(
    id="AD305",
    name="older-names",
    severity=Severity.WARNING,
    summary="The adapter has the names that an older transformers gave the base's modules.",
    explanation=(
        "Names of modules change between versions of transformers. The conversion table that "
        "transformers applies to old checkpoints was applied to the adapter: its tensors, and the "
        "fields of its config that name modules. The adapter acts as it did; saving it writes "
        "today's names."
    ),
    example="`language_model.model.layers.0` in an adapter for LLaVA",
    fix="nothing has to be done; load the adapter and save it again to have today's names",
)
OLDER_NAME_AMBIGUOUS = Code(
    id="AD306",
    name="older-name-ambiguous",
    severity=Severity.ERROR,
    summary="A name of an older transformers could mean more than one module of the base.",
    explanation=(
        "The file has the same module under an old and a new name, or one name that the rules of "
        "transformers lead to several modules. Which values are meant cannot be told."
    ),
    example="tensors for both `language_model.model.layers.0` and `model.language_model.layers.0`",
    fix="remove the tensors that are not meant from the file",
)
TASK_CLASS = Code(
    id="AD307",
    name="task-without-class",
    severity=Severity.ERROR,
    summary="transformers has no class for this task and this kind of model.",
    explanation=(
        "`base.task`, or else the task that the adapters were trained for, decides the class that "
        "the base is loaded with: the one that PEFT's own auto class picks for its model type. "
        "There is none here: the adapter was trained on another kind of model, or on a class of "
        "its author's own."
    ),
    example="task: SEQ_2_SEQ_LM for a base of model_type llama",
    fix="correct `base.task` or the adapter's `task_type`, or load the class in Python and attach",
)
TASKS_MIXED = Code(
    id="AD308",
    name="tasks-mixed",
    severity=Severity.ERROR,
    summary="The adapters of one manifest were trained for different tasks.",
    explanation=(
        "The task decides the class that the base is loaded with, and with it the head and what "
        "the model answers. One loaded base has one class, so all adapters on it need one task. "
        "Adapters without a task, and those that only need what the base's own class has, are "
        "not in the way."
    ),
    example="a sequence classifier and a token classifier on one base",
    fix="write one manifest for each task",
)
NEW_UNCOVERED = Code(
    id="AD309",
    name="new-parameters-uncovered",
    severity=Severity.ERROR,
    summary="A part of the loaded base would be random numbers under this adapter.",
    explanation=(
        "The base's files do not hold this part: the head of a class that the base is loaded as, "
        "or the rows that `base.vocab_size` adds. Each adapter has to bring it, whole modules in "
        "`modules_to_save`, rows also in `trainable_token_indices`. With one that does not, the "
        "model would answer with numbers that nobody trained."
    ),
    example="a classifier with a `score`, and a plain LoRA without, both on a causal base",
    fix="leave this adapter out, or use a base whose files hold this part",
)
VOCABULARY_NOT_RESIZED = Code(
    id="AD324",
    name="vocabulary-not-resized",
    severity=Severity.ERROR,
    summary="The base does not have the number of token rows that base.vocab_size says.",
    explanation=(
        "`base.vocab_size` resizes the token embeddings of a base that is loaded here. A live "
        "model is never changed, so it must have been resized before. Where the base's token "
        "embedding is not known, it cannot be resized either."
    ),
    example="vocab_size: 49155, and a live model with 49152 rows",
    fix="call `model.resize_token_embeddings(N)` with that number before attaching",
)
MERGE_LOADED_AS = Code(
    id="AD325",
    name="merge-needs-loading",
    severity=Severity.ERROR,
    summary="This base is not loaded as its files say, so its files cannot be merged one by one.",
    explanation=(
        "`adapterdock merge` copies the base's files and changes their tensors. Here the base is "
        "loaded as another class, with another number of labels or with resized embeddings, so "
        "other tensors and another config.json have to be written."
    ),
    example="a classifier on a causal base",
    fix="load it, then `model.merge_and_unload().save_pretrained(DIR)`",
)
TARGET_NOT_CALLED = Code(
    id="AD356",
    name="target-never-called",
    severity=Severity.ERROR,
    summary="The adapter has trained factors at a module that the model never calls.",
    explanation=(
        "A model may compute with a module's weight and never run the module: "
        "nn.MultiheadAttention does so with its `out_proj`, Mamba with `dt_proj`, WavLM with all "
        "projections of its attention. An adapter acts on what a module is given and what it "
        "returns, so it would do nothing there, in PEFT as well. PEFT trains nothing at such a "
        "module, and its factors stay as they began: where they are zero, AD357 says so. Values "
        "that are not zero come from another base or another version of its code. For a new "
        "adapter, training would never reach such a target."
    ),
    example="a lora_B with values at `head.attention.out_proj` of a SiglipVisionModel",
    fix="train the adapter without this target (`exclude_modules` takes it out), on this base",
)
TARGET_IDLE = Code(
    id="AD357",
    name="target-does-nothing",
    severity=Severity.WARNING,
    summary="The adapter has factors of zero at a module that the model never calls.",
    explanation=(
        "The model computes with this module's weight and never runs the module, so PEFT could "
        "not train the factors there. They are zero as they were at first (the values of these "
        "few tensors were read to tell that), and the adapter answers as if they were not there."
    ),
    example="a lora_B of zeros at `head.attention.out_proj` of a SiglipVisionModel",
    fix="nothing has to be done; leave the module out of the targets when training again",
)
EXPERTS_UNCLEAR = Code(
    id="AD358",
    name="experts-layout-unclear",
    severity=Severity.ERROR,
    summary="Nothing tells how the adapter's factors lie on a mixture's experts.",
    explanation=(
        "PEFT up to 0.18 took the second dimension of a parameter of experts for the input of A, "
        "0.19.0 did so for most, and later versions take the last one. Where the two sizes "
        "differ, the factors tell which it is. Where they are equal, only `peft_version` does, "
        "which PEFT writes since 0.18; and it cannot where transformers itself has exchanged the "
        "two sides since."
    ),
    example="target_parameters on experts of (8, 64, 64), and no peft_version",
    fix="write the `peft_version` that trained the adapter into adapter_config.json",
)
CONFIG_OF_OTHERS = Code(
    id="AD398",
    name="config-of-others",
    severity=Severity.UNCHECKED,
    summary="The adapter's config is not the one that its weights were saved with.",
    explanation=(
        "adapterdock records in the weights' file the digest of the config that was saved with "
        "them. This config differs in a field that changes how the weights act (rank, alpha, "
        "targets). A save was interrupted between the two files, two saves ran at once, one of the "
        "files was copied without the other, or the config was edited on purpose. Which of these "
        "cannot be told. Fields that only describe (the name of the base, the version of PEFT) do "
        "not count, and a file that PEFT wrote records nothing."
    ),
    example="lora_alpha changed by hand after model.save_adapter(folder, name)",
    fix=(
        "Save the adapter again, or put back the config of these weights. If the config was "
        "changed on purpose, accept AD398, and save the adapter to record the new config."
    ),
)
