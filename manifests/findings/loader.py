"""Codes AD7xx: reading weights, attaching them, and choosing which are active."""

from __future__ import annotations

from .code import Code
from .finding import Severity

TENSORS_UNREADABLE = Code(
    id="AD701",
    name="tensors-unreadable",
    severity=Severity.ERROR,
    summary="An adapter's weights could not be read.",
    explanation=(
        "The file is opened once and read whole into memory. It was not there, could not be "
        "opened, or its length changed while it was being read, which means that something "
        "else is writing it."
    ),
    example="a path that was deleted between `pull` and `load`",
    fix="check the path and its permissions, and that nothing writes the file; then load again",
)
TENSORS_CHANGED = Code(
    id="AD702",
    name="tensors-digest-mismatch",
    severity=Severity.ERROR,
    summary="The bytes that were read are not the ones that were locked.",
    explanation=(
        "The same buffer that is attached is hashed, so the digest speaks of exactly these "
        "bytes. It differs from the one in the lock or the manifest: the file was changed, "
        "damaged or replaced after it was pinned. Nothing was attached."
    ),
    example="adapter_model.safetensors edited in place after `adapterdock lock`",
    fix=(
        "restore the file (`adapterdock cache verify`, then `adapterdock pull`), or accept "
        "the new one with `adapterdock lock --upgrade NAME`"
    ),
)
TENSORS_NOT_FINITE = Code(
    id="AD703",
    name="tensors-not-finite",
    severity=Severity.ERROR,
    summary="An adapter holds NaN or infinite values.",
    explanation=(
        "One such value spreads through the whole model at its first use. It comes from a "
        "training run that diverged or from a conversion to a dtype that is too narrow. The "
        "values are looked at where the weights are first read, which is on attaching."
    ),
    example="a lora_A.weight with one NaN",
    fix="use an earlier checkpoint of this adapter, or train it again with a lower learning rate",
)
TENSORS_CHANGE_NOTHING = Code(
    id="AD704",
    name="tensors-change-nothing",
    severity=Severity.ERROR,
    summary="Attaching the adapter would change nothing.",
    explanation=(
        "Every delta of the adapter is exactly zero (for LoRA: A or B is zero at every site, or "
        "the scale is zero; for IA3: each vector is all ones), it holds no whole module, and its "
        "biases are the base's own. That is what a freshly initialised, never trained adapter "
        "looks like. A trainable one may start so; one that is only used may not."
    ),
    example="an adapter saved before its first training step",
    fix="check which checkpoint was saved; to go on training it, declare `trainable: true`",
)
TENSORS_NOT_FLOAT = Code(
    id="AD705",
    name="tensors-dtype-unsupported",
    severity=Severity.ERROR,
    summary="A tensor of the adapter is not of a floating-point dtype that can be used.",
    explanation=(
        "Adapters hold floating-point factors: float64, float32, float16, bfloat16, or one of "
        "the 8-bit floats that torch knows, which are widened on reading. Integers, booleans "
        "and packed formats are not weights of an adapter."
    ),
    example="a lora_A.weight stored as I8",
    fix="save the adapter in float32, float16 or bfloat16",
)
DTYPE_TOO_NARROW = Code(
    id="AD706",
    name="dtype-too-narrow",
    severity=Severity.ERROR,
    summary="A value of the adapter does not fit into the dtype it should be attached in.",
    explanation=(
        "float16 ends at 65504. A larger value would become infinite in the conversion, and "
        "the model's output with it."
    ),
    example="a float32 adapter with a weight of 1e5, attached onto a float16 base",
    fix="declare `dtype: float32` or `dtype: bfloat16` for this adapter",
)
PLAN_MISMATCH = Code(
    id="AD707",
    name="tensors-not-as-planned",
    severity=Severity.ERROR,
    summary="The weights are not those that the plan was made from.",
    explanation=(
        "What goes where is decided from the file's header. A tensor that the plan names is "
        "missing from the bytes that were read now, or has another shape than its place "
        "needs."
    ),
    example="a header read from one revision and a file read from another",
    fix="plan and attach from the same file: load the adapter again",
)
MODULE_MISSING = Code(
    id="AD710",
    name="module-missing",
    severity=Severity.ERROR,
    summary="The live model has no module of this name.",
    explanation=(
        "The adapter changes a module that is not in this model. Either it was trained for "
        "another model, or the model was loaded with another class (with or without a head), "
        "or it was rebuilt after it was adapted."
    ),
    example="`model.layers.30.self_attn.q_proj` on a model of 30 layers (0 to 29)",
    fix="check that the base is the one the adapter was trained on, with the same model class",
)
MODULE_MISFIT = Code(
    id="AD711",
    name="module-misfit",
    severity=Severity.ERROR,
    summary="A tensor of the adapter does not have the size of its module.",
    explanation=(
        "The factors of a LoRA must be (r, in) and (out, r), with the in and out sizes of the "
        "module they sit on; a whole saved module must have the shapes of the module it "
        "stands for."
    ),
    example="lora_A of (16, 2048) at a Linear with 576 input features",
    fix="check that the base is the one the adapter was trained on",
)
MODULE_UNSUPPORTED = Code(
    id="AD712",
    name="module-unsupported",
    severity=Severity.ERROR,
    summary="The method cannot sit on a module of this type.",
    explanation=(
        "LoRA works on Linear (quantised ones too), Hugging Face's Conv1D, Embedding and "
        "Conv1d/2d/3d. Of a convolution with dilation, PEFT's factors give an output of "
        "another size, so such an adapter cannot have been trained."
    ),
    example="a LoRA on an nn.LSTM",
    fix="take this module out of the adapter's targets when training it",
)
MODULE_NOT_CALLED = Code(
    id="AD713",
    name="module-never-called",
    severity=Severity.ERROR,
    summary="The model uses this module's weight without ever calling the module.",
    explanation=(
        "An adapter works on what a module is given and what it returns. "
        "nn.MultiheadAttention reads `out_proj.weight` itself, so an adapter there would "
        "silently do nothing. A LoRA on the attention itself changes that weight too. Factors "
        "of zero there are let through, since they change nothing (AD357)."
    ),
    example="a LoRA on `self_attn.out_proj` of an nn.TransformerEncoderLayer",
    fix="take this module out of the adapter's targets when training it",
)
MODULE_SHARED = Code(
    id="AD714",
    name="module-shared",
    severity=Severity.ERROR,
    summary="The module is in the model under more than one name.",
    explanation=(
        "One module object is reached by several names. An adapter is saved under one of "
        "them, and whether the others are meant cannot be told: PEFT changes only the name "
        "that it saw first. Changing all of them would be another model than the one that was "
        "trained."
    ),
    example="one nn.Linear that is both `encoder.proj` and `decoder.proj`",
    fix="give each name a module of its own (a copy) before adapting the model",
)
MODULE_ON_META = Code(
    id="AD715",
    name="module-without-weights",
    severity=Severity.ERROR,
    summary="The module has no weights: it is on the meta device and nothing will bring them.",
    explanation=(
        "A model on the meta device has shapes only. Under accelerate's offload a module's "
        "weights are on meta between its uses, and a hook says where they come from; this "
        "module has no such hook."
    ),
    example="a model made under `torch.device('meta')` and never loaded",
    fix="load the model's weights before attaching",
)
SITE_NEVER_FIRED = Code(
    id="AD716",
    name="site-never-fired",
    severity=Severity.WARNING,
    summary="An adapted module did not run when the adapter was first used.",
    explanation=(
        "An adapter works when its modules run. Some of this one's did not: either this input "
        "does not reach them (an expert that no token was routed to, an image tower without "
        "an image), or the model uses the module's weight without calling it, and that part "
        "of the adapter does nothing."
    ),
    example="Mamba's `dt_proj`, of which the model reads the weight alone",
    fix=(
        "look at `model.findings` after a use that should reach every module; one that stays "
        "there is never called"
    ),
)
BIAS_UNSUPPORTED = Code(
    id="AD717",
    name="bias-unsupported",
    severity=Severity.ERROR,
    summary="A trained bias belongs to a module where it cannot be exchanged.",
    explanation=(
        "A trained bias is applied as the difference from the base's bias, added to the "
        "module's output, where the bias is the last thing the module adds (Linear, Conv1D, "
        "convolutions, LayerNorm, GroupNorm, BatchNorm). Any other module runs with the trained "
        "bias for the time of a call. This one has no bias of its own, or its forward cannot run "
        "with another one."
    ),
    example="a bias for an nn.Linear that has none",
    fix="train the adapter with `bias: none` or `bias: lora_only`",
)
SAVED_INCOMPLETE = Code(
    id="AD718",
    name="saved-module-incomplete",
    severity=Severity.ERROR,
    summary="A whole module that the adapter brings lacks a parameter, or has one too many.",
    explanation=(
        "A module in `modules_to_save` replaces the base's with all its parameters. With one "
        "of them missing, half of the base's module would stay in place."
    ),
    example="`classifier.weight` without `classifier.bias`",
    fix="save the adapter again from the training run that made it",
)
SITE_INSIDE_SAVED = Code(
    id="AD719",
    name="site-inside-saved-module",
    severity=Severity.ERROR,
    summary=(
        "An adapter has factors inside a module that it, or an adapter mixed with it, "
        "replaces whole."
    ),
    explanation=(
        "The replaced module's inner modules do not run, so the factors on them would do nothing."
    ),
    example="a LoRA on `classifier.dense` mixed with an adapter that brings a whole `classifier`",
    fix=(
        "do not make these two active together; in one adapter, drop the module from "
        "`modules_to_save` or from the targets"
    ),
)
NAME_TAKEN = Code(
    id="AD720",
    name="adapter-name-taken",
    severity=Severity.ERROR,
    summary="An adapter or a composition of this name is attached already.",
    explanation=(
        "Loading onto an existing name would leave it half old and half new: its rank and "
        "alpha belong to the weights it has."
    ),
    example="`load_adapter(..., 'tone')` twice",
    fix=(
        "choose another name; or replace the old one, whatever its rank and alpha, by "
        "`load_adapter(source, name, hotswap=True)`"
    ),
)
NAME_INVALID = Code(
    id="AD721",
    name="adapter-name-invalid",
    severity=Severity.ERROR,
    summary="This cannot be the name of an adapter.",
    explanation=(
        "Adapters and compositions are named as in a manifest, so that a model can be saved as "
        "one. `__base__` is kept: it means the base without any adapter."
    ),
    example="`attach_adapter(model, '', ...)`",
    fix="choose a name such as `billing`",
)
MODEL_COMPILED = Code(
    id="AD722",
    name="model-compiled",
    severity=Severity.ERROR,
    summary="The model is compiled already.",
    explanation=(
        "What torch.compile or torch.jit made of a model does not look at hooks that come "
        "later: an adapter attached now would silently do nothing."
    ),
    example="`attach(torch.compile(model), ...)`",
    fix="attach first, compile afterwards",
)
MODEL_WRAPPED = Code(
    id="AD723",
    name="model-already-adapted",
    severity=Severity.ERROR,
    summary="The model carries adapters of another kind, or of another wrapper.",
    explanation=(
        "PEFT has put its own layers into this model, or another AdaptedModel holds it. The "
        "names of its modules are not the base's, and whose adapters are active could not be "
        "told."
    ),
    example="`attach(get_peft_model(model, config), ...)`",
    fix="give the plain base model: `peft_model.unload()`, or `adapted.detach()`",
)
METHOD_UNKNOWN = Code(
    id="AD724",
    name="method-not-attachable",
    severity=Severity.ERROR,
    summary="There is no native implementation of this adapter method.",
    explanation=(
        "The methods that can be attached are rows of one table. This adapter's is not among them."
    ),
    example="an adapter whose peft_type is POLY",
    fix="convert the adapter to LoRA, or merge it with PEFT and use the merged model as the base",
)
PLAN_INCOMPLETE = Code(
    id="AD725",
    name="tensors-without-place",
    severity=Severity.ERROR,
    summary="Tensors of the adapter have no place in the model.",
    explanation=(
        "Every tensor of a file has to go somewhere. One that does not match anything means "
        "that the adapter was made for another model or by another convention, and that a "
        "part of it would be lost."
    ),
    example="`transformer.h.0.attn.c_attn.lora_A.weight` for a Llama",
    fix="check that the base is the one the adapter was trained on",
)
ATTACH_FAILED = Code(
    id="AD726",
    name="attach-failed",
    severity=Severity.ERROR,
    summary="Attaching broke off; the model is as it was before.",
    explanation=(
        "Something that is not a property of the adapter went wrong, most often memory. "
        "Everything that had been done was taken back."
    ),
    example="out of memory while the weights are copied to the device",
    fix="see the cause in the message; free memory or choose another device, then try again",
)
ADAPTER_UNKNOWN = Code(
    id="AD730",
    name="adapter-unknown",
    severity=Severity.ERROR,
    summary="No adapter or composition of this name is attached.",
    explanation=("Names are compared whole."),
    example="`model.set_adapter('biling')`",
    fix="`model.adapters` lists the names",
)
SELECTION_INVALID = Code(
    id="AD731",
    name="selection-invalid",
    severity=Severity.ERROR,
    summary="This does not say which adapters to use.",
    explanation=(
        "A selection is a name, a list of different names (each at weight 1), a mapping of "
        "names to finite weights, or None for the base alone."
    ),
    example="`model.set_adapter({'tone': float('nan')})`",
    fix="give a name, a list of names, or {name: weight}",
)
WHOLE_MODULES_MIXED = Code(
    id="AD732",
    name="whole-modules-mixed",
    severity=Severity.ERROR,
    summary=(
        "Adapters that bring the same module whole cannot be active together, nor at another "
        "weight than 1."
    ),
    explanation=(
        "A whole module stands in for the base's. There is no sum of two of them, and no half "
        "of one, that any training run has made."
    ),
    example="two classifiers of different tasks in one composition",
    fix="make one of them active at a time, at weight 1",
)
ADAPTERS_DISABLED = Code(
    id="AD733",
    name="adapters-disabled",
    severity=Severity.ERROR,
    summary="An adapter was asked for while all adapters are disabled.",
    explanation=(
        "`disable_adapters()` turns every adapter off until `enable_adapters()`. A call that "
        "names an adapter all the same is answered with this error instead of with the base's "
        "output."
    ),
    example="`model.generate(..., adapter='tone')` after `model.disable_adapters()`",
    fix="call `model.enable_adapters()` first",
)
ADAPTER_IN_USE = Code(
    id="AD734",
    name="adapter-in-use",
    severity=Severity.ERROR,
    summary="This cannot be removed while something depends on it.",
    explanation=(
        "A composition is made of this adapter, or a call on another thread is running "
        "through the model's adapters at this moment."
    ),
    example="`delete_adapter('tone')` while the composition `formal-billing` holds it",
    fix="delete the composition first, or wait for running calls to end",
)
ROWS_COUNT = Code(
    id="AD770",
    name="rows-and-names-differ",
    severity=Severity.ERROR,
    summary="adapter_names has not one name for each row of the batch.",
    explanation=(
        "Each row of the batch runs with the adapter, composition or `__base__` that is named for "
        "it. Beams and several returned sequences share the name of their row."
    ),
    example='`model(**four_rows, adapter_names=["a", "b"])`',
    fix="name as many adapters as the batch has rows",
)
ROWS_LOST = Code(
    id="AD771",
    name="rows-not-known-here",
    severity=Severity.ERROR,
    summary="A module does not see the rows of the batch: they cannot have adapters of their own.",
    explanation=(
        "Experts see the tokens of all rows sorted by expert, some models lay all tokens out in "
        "one dimension, in windows, or tokens first; vision towers see images. Which of them "
        "belong to which row would be a guess, even where their number fits. So the base is asked "
        "once: it runs alone on three short rows, and a module that is not given three rows then "
        "is refused, as is one that could not be asked. LILY adapters answer each row by what all "
        "rows of the batch are."
    ),
    example="`adapter_names` on a Mixtral whose adapters act on the router",
    fix="run one batch for each adapter, with `adapter=` or `using`",
)
CACHE_OF_ANOTHER = Code(
    id="AD772",
    name="cache-of-another-routing",
    severity=Severity.ERROR,
    summary="These past_key_values were made with other adapters than are active now.",
    explanation=(
        "Keys and values of earlier tokens depend on the adapters that were active when they were "
        "computed. Going on with others would give the answer of neither."
    ),
    example="a prompt's cache that was filled by the base, used with an adapter",
    fix="fill the cache with the adapters that you go on with",
)
NOT_COMPILED_FOR = Code(
    id="AD773",
    name="not-compiled-for-this",
    severity=Severity.ERROR,
    summary="The compiled model has no place for what these adapters do.",
    explanation=(
        "`model.compile(max_rank=...)` compiles the base with buffers for low-rank factors, up to "
        "that rank, at the linear modules that were adapted then. Adapters change freely within "
        "that; anything else would need another graph."
    ),
    example="`model.compile(max_rank=8)`, then an adapter of rank 16",
    fix="compile again with a larger `max_rank`, after attaching what is to be used",
)
PROMPT_MIXED = Code(
    id="AD774",
    name="prompt-mixed",
    severity=Severity.ERROR,
    summary="Virtual tokens cannot be combined in this way.",
    explanation=(
        "Virtual tokens (prompt tuning, p-tuning, prefix tuning) lengthen the input or the cache "
        "of the whole batch. They are there or not there: at weight 1, from one adapter, for all "
        "rows of a batch. Other methods may act beside them."
    ),
    example='model.set_adapter({"a-prompt": 0.5})',
    fix="select one adapter with virtual tokens, at weight 1, for the whole batch",
)
PROMPT_INPUT = Code(
    id="AD775",
    name="prompt-input",
    severity=Severity.ERROR,
    summary="An input of this call cannot stand beside virtual tokens.",
    explanation=(
        "Virtual tokens lengthen what the model sees. Inputs that say something of each token "
        "(position ids, masks of four dimensions, encoder outputs, static caches) would then be "
        "of another length, and what they mean for the virtual tokens is not known. PEFT ignores "
        "some of them with a warning."
    ),
    example="model(input_ids=..., position_ids=...) with a prompt tuning active",
    fix="leave the input out; masks have two dimensions and do not count the virtual tokens",
)
PROMPT_UNSUPPORTED = Code(
    id="AD776",
    name="prompt-unsupported",
    severity=Severity.ERROR,
    summary="This model cannot be given virtual tokens.",
    explanation=(
        "Prompt tuning and p-tuning need a model that takes `inputs_embeds` and tells its input "
        "embeddings; prefix tuning needs one that takes `past_key_values`."
    ),
    example="a prefix tuning on BertForSequenceClassification",
    fix="use the base that the adapter was trained on, or PEFT itself",
)
ROUTING_LOST = Code(
    id="AD735",
    name="routing-lost-in-recompute",
    severity=Severity.ERROR,
    summary=(
        "Gradient checkpointing would run this part again without knowing which adapters were "
        "active."
    ),
    explanation=(
        "Reentrant checkpointing runs the forward a second time in the backward pass. Where "
        "transformers does it, the routing is carried along; where the model calls "
        "torch.utils.checkpoint by itself it cannot be, and the gradients would silently be "
        "those of another model. The same holds when an adapter was deleted between forward "
        "and backward."
    ),
    example="a module that calls `torch.utils.checkpoint.checkpoint(..., use_reentrant=True)`",
    fix=(
        "use `model.gradient_checkpointing_enable()` of transformers, or no checkpointing; "
        "delete adapters only after backward"
    ),
)
MODEL_DETACHED = Code(
    id="AD736",
    name="model-detached",
    severity=Severity.ERROR,
    summary="This wrapper was detached from its base.",
    explanation=(
        "`detach()` gives the base back and ends the wrapper; it has no adapters any more."
    ),
    example="`model.detach(); model(**inputs)`",
    fix="use what `detach()` returned, or attach again",
)
ACTIVE_DELETED = Code(
    id="AD737",
    name="active-adapter-deleted",
    severity=Severity.WARNING,
    summary="The default adapter was deleted; the base answers alone now.",
    explanation=("No other adapter is chosen in its place: which one would be a guess."),
    example="`model.set_adapter('tone'); model.delete_adapter('tone')`",
    fix="call `set_adapter` with the one that should answer from now on",
)
COPY_REFUSED = Code(
    id="AD738",
    name="copy-refused",
    severity=Severity.ERROR,
    summary="A model with adapters cannot be copied or pickled as a whole.",
    explanation=(
        "A copy would share hooks and routing with the original. The base alone can be copied."
    ),
    example="`copy.deepcopy(adapted_model)`",
    fix="copy `model.base_model` and attach the adapters to the copy",
)
NOT_THROUGH_WRAPPER = Code(
    id="AD739",
    name="not-on-an-adapted-model",
    severity=Severity.ERROR,
    summary="This method would work on the base alone and leave the adapters out.",
    explanation=(
        "Methods of the base that change its modules or write it to disk know nothing of the "
        "adapters."
    ),
    example="`adapted.resize_token_embeddings(...)`",
    fix="call it on `model.base_model` if the base alone is meant, before adapters are attached",
)
STATE_MISMATCH = Code(
    id="AD740",
    name="state-dict-mismatch",
    severity=Severity.ERROR,
    summary="A state dict does not belong to the adapters that are attached.",
    explanation=(
        "The state dict of an adapted model holds its adapters and nothing of the base. Keys "
        "are missing, unknown, or of another shape; nothing was loaded."
    ),
    example="a state dict saved when another adapter was attached",
    fix="attach the same adapters under the same names first, or load with strict=False",
)
OUTPUT_NOT_TENSOR = Code(
    id="AD741",
    name="output-not-a-tensor",
    severity=Severity.ERROR,
    summary="An adapted module did not take or return one tensor.",
    explanation=(
        "The delta of an adapter is added to what its module returns, computed from what it "
        "is given. This module's forward has another form."
    ),
    example="a Linear of a parallelism library that returns (output, bias)",
    fix="take this module out of the adapter's targets",
)
FLOAT32_NO_MODULE = Code(
    id="AD742",
    name="float32-modules-no-match",
    severity=Severity.ERROR,
    summary=(
        "A pattern of `float32_modules` matches no module of the model, or one that cannot be "
        "widened."
    ),
    explanation=(
        "Patterns are shell globs over whole module names, such as `*norm*`. One that matches "
        "nothing is almost always a slip. A module whose weights are offloaded or quantised "
        "cannot be widened after loading."
    ),
    example="`float32_modules: ['*layernrom*']`",
    fix="correct the pattern; `adapterdock show` lists the module names",
)
BASE_REBUILT = Code(
    id="AD744",
    name="base-rebuilt",
    severity=Severity.ERROR,
    summary="The base's modules were exchanged while adapters sit on them.",
    explanation=(
        "Adapters act on the modules that were there when they were attached. Some of these "
        "are no longer in the model (`resize_token_embeddings` on the base does this), so "
        "their adapters do nothing any more."
    ),
    example="`model.base_model.resize_token_embeddings(...)` after attaching",
    fix="detach, change the base, and attach again",
)
CANNOT_GENERATE = Code(
    id="AD743",
    name="cannot-generate",
    severity=Severity.ERROR,
    summary="The base model has no `generate`.",
    explanation=(
        "Only models with a language-modelling head generate. This one was loaded without."
    ),
    example="`AutoModel` instead of `AutoModelForCausalLM`",
    fix="load the base with a class that can generate",
)
WEIGHT_FORWARD = Code(
    id="AD749",
    name="weight-forward-exchanged",
    severity=Severity.ERROR,
    summary="A module whose parameters an adapter changes has a forward that is not its own.",
    explanation=(
        "Adapters of single parameters (target_parameters) run the module's own forward with other "
        "weights. Something has put a forward of another kind in front of it since they were "
        "attached, which cannot be told to use them."
    ),
    example="`model.base_model.layers[0].mlp.experts.forward = other` after attaching",
    fix="detach, change the base, and attach again; or take the other forward away",
)
TIED_DIFFERS = Code(
    id="AD750",
    name="tied-rows-differ",
    severity=Severity.ERROR,
    summary="Rows of tied modules are stored twice, with other values.",
    explanation=(
        "Where the base ties its head to its embedding, trained tokens are the same rows of both, "
        "and PEFT stores them under both names. In this file the two differ, and which one was "
        "trained cannot be told."
    ),
    example="another lm_head.trainable_tokens_delta than model.embed_tokens.trainable_tokens_delta",
    fix="save the adapter again from PEFT, or load it onto a base that does not tie them",
)
COMBINE_UNSUPPORTED = Code(
    "AD708",
    "combine-unsupported",
    Severity.ERROR,
    "These adapters cannot be combined in this way.",
    "Every method but `sum` makes one new LoRA out of plain pairs of factors. DoRA rescales the "
    "weight that it sits on, other methods (IA3, LoHa, ...) have no such pairs, and methods that "
    "add factors to factors (linear, ties, dare_linear, dare_ties, magnitude_prune) need one rank "
    "wherever adapters meet. Nothing is left out or guessed.",
    "combine: linear   # of an adapter of rank 8 and one of rank 16 on the same modules",
    "use `combine: sum`, which is exact over any adapters, or svd or a method with _svd where only "
    "the ranks differ",
)
WEIGHT_IDLE = Code(
    "AD709",
    "weight-matches-nothing",
    Severity.ERROR,
    "A weight by module is for no module of the adapter.",
    "Weights by module are an ordered list of globs over whole module names: the first that "
    "matches counts, and where none does the adapter is left out. A glob that decides about no "
    "module of the adapter (it matches none, or only those that an earlier one takes) is a slip.",
    "of: {tone: {'*': 0.4, '*.mlp.*': 0.1}}   # '*' comes first and takes all",
    "correct the glob, or put the more special ones first",
)
COMPOSITION_NOT_SAVED = Code(
    "AD727",
    "composition-not-saved",
    Severity.ERROR,
    "A composition could not be saved.",
    "Saving writes adapter_config.json and adapter_model.safetensors, each under a temporary name "
    "first. The folder could not be written, or the composition adds nothing at all.",
    "model.save_composition('/read-only/mix', 'mix')",
    "check the folder, its permissions and the space left",
)
GIVEN_UNUSABLE = Code(
    "AD781",
    "given-unusable",
    Severity.ERROR,
    "What was handed over in memory is no adapter.",
    "An adapter in memory is a PEFT config (the object, a mapping with its fields, or the bytes of "
    "adapter_config.json) and its tensors by PEFT's names on disk (or the bytes of a safetensors "
    "file).",
    "model.load_adapter(None, 'tone', peft_config='tone', adapter_state_dict=[])",
    "pass peft_config=peft.LoraConfig(...) and adapter_state_dict={name: tensor, ...}",
)
BASE_NOT_LOADED = Code(
    "AD782",
    "base-not-loaded",
    Severity.ERROR,
    "transformers could not load the base model.",
    "The base is loaded by transformers' from_pretrained with the manifest's dtype, device_map, "
    "quantization and attn_implementation. What transformers said is in the finding.",
    "base: {model: ./model, attn_implementation: flash_attention_2}   # not installed",
    "fix what transformers names, or take the option out of the manifest",
)
BASE_INCOMPLETE = Code(
    "AD783",
    "base-incomplete",
    Severity.ERROR,
    "The checkpoint does not fill the model.",
    "transformers leaves parameters that a checkpoint lacks at random values and goes on. A base "
    "that is partly random is refused.",
    "config.json says LlamaForSequenceClassification, the checkpoint has no score.weight",
    "use a complete checkpoint, or correct `architectures` in its config.json",
)
QUANTIZATION_UNKNOWN = Code(
    "AD784",
    "quantization-unknown",
    Severity.ERROR,
    "base.quantization is not something that transformers accepts.",
    "The mapping becomes transformers' quantization config: `quant_method` chooses the class, the "
    "other keys are its fields.",
    "base: {quantization: {load_in_4bit: true}}   # no quant_method",
    "write quantization: {quant_method: bitsandbytes, load_in_8bit: true}, or another method",
)
GENERATE_FAILED = Code(
    "AD785",
    "generate-failed",
    Severity.ERROR,
    "The model raised an error while it was answering.",
    "What transformers or torch said is in the finding. An index that is out of range, for one, "
    "means that the tokenizer gives ids for which the base has no embedding rows.",
    "a base with 256 embedding rows beside a tokenizer with 49152 ids",
    "check that the tokenizer beside the base is the base's own; try --raw for a base without chat",
)
BASE_CLASS_UNKNOWN = Code(
    "AD786",
    "base-class-unknown",
    Severity.ERROR,
    "The base's config.json does not name a model class that is known here.",
    "The first of `architectures` says which class the weights were saved from. Without it, or "
    "with one that the installed transformers does not have, which class to load would be a guess.",
    "config.json without `architectures`",
    "upgrade transformers, or say what it is loaded for (`base.task: CAUSAL_LM`), or add "
    "`architectures: [LlamaForCausalLM]` (or whichever it is) to config.json; or load the model "
    "yourself and use adapterdock.attach",
)
REMOTE_CODE_REFUSED = Code(
    "AD787",
    "remote-code-refused",
    Severity.ERROR,
    "The base can only be loaded by running Python code from its repository.",
    "The class in config.json is not transformers' own: `auto_map` points to Python files beside "
    "the weights. They are run only where the manifest says so; then the lock pins them.",
    "architectures: [AcmeForCausalLM], auto_map: {AutoModelForCausalLM: modeling_acme.AcmeFor...}",
    "read the files; if you trust them, set base.trust_remote_code: true and lock again",
)
REMOTE_CODE_ELSEWHERE = Code(
    "AD788",
    "remote-code-elsewhere",
    Severity.ERROR,
    "Loading the base would run code from another repository, which nothing pins.",
    "`trust_remote_code` is for the Python files beside the weights, which the lock pins by "
    "digest. Code that is fetched from another repository may change from one load to the next. "
    "transformers fetches it for `auto_map` with `--`, for an attention or experts implementation "
    "that is a kernel of the Hub, and a `backbone` that is a repository; at any depth of "
    "config.json.",
    "auto_map: {AutoModel: acme/code--modeling_acme.AcmeModel}; attn_implementation: acme/kernel",
    "copy that repository's Python files beside the weights and name them without `--`; for an "
    "attention kernel, install its package",
)
BASE_TENSORS_UNUSED = Code(
    "AD789",
    "base-tensors-unused",
    Severity.WARNING,
    "The base's checkpoint holds tensors that the loaded model has no place for.",
    "This is usual where a checkpoint keeps heads of its pre-training beside the model. It is "
    "worth a look where the names are not those of a head.",
    "a BertModel whose checkpoint has cls.predictions.*",
    "nothing, if these are heads; else check `architectures` in config.json",
)
BASE_WARNING = Code(
    "AD790",
    "base-warning",
    Severity.WARNING,
    "transformers warned while it loaded the base.",
    "What it said is in the finding. The model was loaded all the same.",
    "a generation config with a value that has no effect",
    "follow what transformers says, or leave it",
)
FLOAT32_NO_ORIGINAL = Code(
    "AD791",
    "float32-no-original",
    Severity.ERROR,
    "A module of `float32_modules` cannot be given the checkpoint's own values.",
    "The base was loaded in half precision, and the parameter's float32 values were looked for in "
    "the checkpoint, by name, to undo the rounding. None of its tensors is this parameter: "
    "transformers fuses or transposes it at load, or its name there is an old one.",
    "float32_modules: ['*experts*'] of a model whose experts are fused at load",
    "take the module out of float32_modules, load in float32, or save the base again with "
    "save_pretrained so that its names are current",
)
TOKENIZER_NOT_LOADED = Code(
    "AD792",
    "tokenizer-not-loaded",
    Severity.ERROR,
    "There is no tokenizer beside the base that transformers can load.",
    "Text is turned into ids by the tokenizer that was pulled with the base. What transformers "
    "said is in the finding.",
    "a base folder with config.json and model.safetensors only",
    "put the base's tokenizer.json and tokenizer_config.json beside its weights and lock again",
)

TEMPLATE_REFUSED = Code(
    "AD394",
    "chat-template-refused",
    Severity.ERROR,
    "The base's chat template could not be rendered within its bounds.",
    "A chat template comes with the base and is a small program. It is rendered once in a process "
    "of its own, with bounded time and memory, before it is used: one that fails there, that "
    "multiplies text, or that does not end, is not run beside the model.",
    "tokenizer_config.json with chat_template: \"{{ 'x' * 10000000000 }}\"",
    "use the tokenizer files of the base's own repository, or run with --raw to leave it out",
)
METHOD_NOT_TRAINED = Code(
    id="AD745",
    name="method-not-trained",
    severity=Severity.ERROR,
    summary="This method's adapters are used here, and not trained.",
    explanation=(
        "Training with this method needs more than gradients: AdaLoRA moves ranks between the "
        "modules while it trains and adds a term to the loss. Continuing without that would be "
        "another training, so it is refused. VeLoRA compresses what backward needs."
    ),
    example="`trainable: true` on an AdaLoRA adapter",
    fix="leave `trainable` out, or continue the training with PEFT",
)

PEFT_MISSING = Code(
    id="AD817",
    name="peft-missing",
    severity=Severity.ERROR,
    summary="The adapter's method attaches through PEFT, which is not installed.",
    explanation=(
        "docs/reference/methods.md says which methods are carried out here and which by PEFT's own "
        "layers. Nothing else needs PEFT. An old PEFT may not know the method yet."
    ),
    example='an adapter with "peft_type": "BOFT" where `import peft` fails',
    fix="pip install 'adapterdock[peft]'",
)
PEFT_CHANGED_BASE = Code(
    id="AD818",
    name="peft-changed-base",
    severity=Severity.ERROR,
    summary="Making the adapter's layers would change the base's own weights.",
    explanation=(
        "PEFT's layers are made beside the base and only read its weights. These wrote into them, "
        "as some initialisations of PEFT do, so nothing was attached."
    ),
    example="a method of a newer PEFT that moves part of the weight into the adapter",
    fix="save the adapter again with an initialisation that leaves the base alone",
)
PEFT_PLACE = Code(
    id="AD819",
    name="peft-place",
    severity=Severity.ERROR,
    summary="PEFT's layers cannot sit at a place of this model, or not in this way.",
    explanation=(
        "PEFT has put its layers at other modules than those that file and config name, or its "
        "layer could not answer there: for its weight is quantised, or is offloaded while the "
        "layer needs it, or PEFT cannot compute in the dtype that the manifest declares."
    ),
    example="dtype: float16 for a method that PEFT computes by a Fourier transform",
    fix="leave the adapter's dtype out (it is then float32, as in PEFT), or use a plain base",
)

SAVED_CONTAINER = Code(
    id="AD383",
    name="saved-container",
    severity=Severity.ERROR,
    summary="`modules_to_save` names a list or a dictionary of modules, which cannot be replaced.",
    explanation=(
        "A module of `modules_to_save` is replaced where the model calls it. A `ModuleList`, "
        "`ModuleDict`, `ParameterList` or `ParameterDict` is never called: the model takes out "
        "what is in it, so the replacement would never run, or never be trained. PEFT raises a "
        "TypeError for them. An `nn.Sequential` is called, and can be replaced."
    ),
    example='"modules_to_save": ["layers"] on a Llama',
    fix="name the modules inside the list or dictionary (`layers.0`, `layers.1`) instead",
)
NOT_EXCHANGED = Code(
    id="AD384",
    name="not-exchanged",
    severity=Severity.ERROR,
    summary="The adapter cannot run with other tensors in the place of its parameters.",
    explanation=(
        "`torch.func.functional_call` and `torch.export` put other tensors where the names of "
        "`named_parameters` lead, for the time of a call. Adapters that run here make their "
        "factors anew from them. Layers of PEFT's own and prompt encoders hold their parameters "
        "themselves, a compiled base has copied them, and the rows of a mixed batch have gathered "
        "them."
    ),
    example="torch.func.functional_call(model, tensors, inputs) with a BOFT adapter active",
    fix="leave the parameters of this adapter out of the call, or choose one adapter for all rows",
)
