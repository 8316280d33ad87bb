"""Every call of PEFT's and transformers' adapter API, and what takes its place here.

The one table of names: ``adapterdock migrate`` reports by it, an attribute that a model lacks is
explained by it, and `docs/reference/names.md` lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

PEFT = "peft"
"""Functions and classes that peft exports."""
MODEL = "PeftModel"
"""Methods and attributes of a model of PEFT's."""
TRANSFORMERS = "PreTrainedModel"
"""Methods of a model of transformers'."""


@dataclass(frozen=True)
class Upstream:
    """One name.

    Args:
        name: Of the function, class, method or attribute; ``Class.method`` for a class method.
        owner: :data:`PEFT`, :data:`MODEL` or :data:`TRANSFORMERS`.
        ours: What to write here, with ``{model}`` for the model; empty if nothing is written.
        note: What is different.
        stays: Whether the line stays as it is.
        keywords: Arguments that are called otherwise, or are left out.
        source: Whether the first argument is a source, which must be written as in a manifest.
        placed: How many arguments without a name mean the same.
        others: The names of theirs that follow these, which have another place here or none.
    """

    name: str
    owner: str
    ours: str = ""
    note: str = ""
    stays: bool = False
    keywords: Mapping[str, str] = field(default_factory=dict)
    source: bool = False
    placed: int = 0
    others: tuple[str, ...] = ()


_IN_SOURCE = "in the source: hf://org/name@revision/subfolder"
_OF_THE_HUB = {
    "revision": _IN_SOURCE,
    "subfolder": _IN_SOURCE,
    "token": "storage_options={'token': ...}",
    "local_files_only": "offline=",
}
_LOADING = {
    "is_trainable": "trainable=",
    "torch_device": "leave it out: the adapter is put on the device of its modules",
    "autocast_adapter_dtype": "dtype= (by default that of the modules, or float32 if trainable)",
    "ephemeral_gpu_offload": "leave it out",
    "low_cpu_mem_usage": "leave it out: weights are always read into their own place",
    "key_mapping": "leave it out: names of other versions are recognised",
}
"""In PEFT's order."""
_SAVING = {
    "safe_serialization": "leave it out: only safetensors files are written",
    "save_embedding_layers": "leave it out: train the embedding to have it in the file",
    "path_initial_model_for_weight_conversion": "save with PEFT, which converts such an adapter",
    "save_function": "leave it out",
    "max_shard_size": "leave it out: an adapter is one file",
}
_FROM_PRETRAINED = {name: said for name, said in _LOADING.items() if "leave" in said}
_CREATED = "create the adapter, then choose it: a new adapter is not active"
_ON_ADAPTERS = "facts of each adapter by name"


def _same(owner: str, *names: str, note: str = "") -> list[Upstream]:
    ours = {name: f"{{model}}.{name}(...)" for name in names}
    return [Upstream(name, owner, call, note, stays=True) for name, call in ours.items()]


_TASKS = ("CausalLM", "Seq2SeqLM", "SequenceClassification", "TokenClassification")
_OTHER_TASKS = ("QuestionAnswering", "FeatureExtraction")
_WRAPPERS = [
    "PeftModel",
    "PeftMixedModel",
    *(f"PeftModelFor{task}" for task in (*_TASKS, *_OTHER_TASKS)),
]
_AUTO = ["AutoPeftModel", *(f"AutoPeftModelFor{task}" for task in (*_TASKS, *_OTHER_TASKS))]
_AUTO_HINT = "from_pretrained names the base: load it with transformers, then the adapter"

NAMES: tuple[Upstream, ...] = (
    # peft: classes
    *(
        Upstream(f"{kind}.from_pretrained", PEFT, "AdaptedModel.from_pretrained(...)",
                 keywords=_FROM_PRETRAINED)
        for kind in _WRAPPERS
    ),
    *(
        Upstream(kind, PEFT, "adapterdock.AdaptedModel", "AdaptedModel(base) has no adapter yet")
        for kind in _WRAPPERS
    ),
    *(
        Upstream(f"{kind}.from_pretrained", PEFT,
                 "AdaptedModel.from_pretrained(AutoModel....from_pretrained(base), adapter)",
                 _AUTO_HINT)
        for kind in _AUTO
    ),
    *(Upstream(kind, PEFT, "AdaptedModel.from_pretrained(base, adapter)", _AUTO_HINT)
      for kind in _AUTO),
    # peft: functions
    Upstream("get_peft_model", PEFT,
             "model = AdaptedModel(base); model.add_adapter(name, config); model.set_adapter(name)",
             _CREATED),
    Upstream("inject_adapter_in_model", PEFT, "AdaptedModel(base).add_adapter(name, config)",
             "the base's modules are not replaced"),
    Upstream("get_peft_model_state_dict", PEFT, "adapterdock.get_peft_model_state_dict(...)",
             "import it from adapterdock",
             keywords={"save_embedding_layers": "leave it out", "unwrap_compiled": "leave it out"}),
    Upstream("set_peft_model_state_dict", PEFT, "adapterdock.set_peft_model_state_dict(...)",
             "import it from adapterdock",
             keywords={"ignore_mismatched_sizes": "leave it out: another size is an error"}),
    Upstream("load_peft_weights", PEFT, "model.load_adapter(source, name)",
             "reads, checks and attaches in one step"),
    Upstream("prepare_model_for_kbit_training", PEFT, "",
             "not needed: leave it out; the base is frozen while an adapter is trained"),
    Upstream("hotswap_adapter", PEFT, "model.load_adapter(source, name, hotswap=True)",
             "any rank, alpha and targets"),
    Upstream("prepare_model_for_compiled_hotswap", PEFT, "model.compile(max_rank=...)",
             "in place of torch.compile"),
    Upstream("rescale_adapter_scale", PEFT, "model.using({name: 0.5})", "a weight, for a block"),
    Upstream("get_layer_status", PEFT, "model.adapters", _ON_ADAPTERS),
    Upstream("get_model_status", PEFT, "model.adapters", _ON_ADAPTERS),
    # a PeftModel
    *_same(
        MODEL,
        "forward",
        "generate",
        "disable_adapter",
        "get_base_model",
        "print_trainable_parameters",
        "get_nb_trainable_parameters",
        "merge_adapter",
        "unmerge_adapter",
    ),
    Upstream("set_adapter", MODEL, "{model}.set_adapter(...)", stays=True, placed=1,
             keywords={"adapter_name": "adapter=",
                       "inference_mode": "leave it out: what is trained does not change"},
             others=("inference_mode",)),
    Upstream("add_adapter", MODEL, "{model}.add_adapter(...)", stays=True, placed=2,
             keywords={name: _LOADING[name]
                       for name in ("low_cpu_mem_usage", "autocast_adapter_dtype")},
             others=("low_cpu_mem_usage", "autocast_adapter_dtype")),
    Upstream("delete_adapter", MODEL, "{model}.delete_adapter(...)", stays=True, placed=1,
             keywords={"adapter_name": "adapter_names="}),
    Upstream("save_pretrained", MODEL, "{model}.save_pretrained(...)", stays=True,
             keywords=_SAVING, placed=1,
             others=("safe_serialization", "selected_adapters", "save_embedding_layers",
                     "is_main_process", "path_initial_model_for_weight_conversion")),
    Upstream("push_to_hub", MODEL, "{model}.push_to_hub(...)", stays=True, placed=1,
             keywords={"max_shard_size": _SAVING["max_shard_size"]}),
    Upstream("add_weighted_adapter", MODEL, "{model}.add_weighted_adapter(...)",
             "a random method needs seed=", stays=True, placed=6,
             keywords={"svd_full_matrices": "leave it out", "svd_driver": "leave it out"},
             others=("svd_full_matrices", "svd_driver", "density", "majority_sign_method")),
    Upstream("merge_and_unload", MODEL, "{model}.merge_and_unload(...)", stays=True,
             keywords={"progressbar": "leave it out"},
             others=("progressbar", "safe_merge", "adapter_names")),
    *(
        Upstream(name, MODEL, f"{{model}}.{name}", stays=True)
        for name in ("active_adapter", "peft_config", "active_peft_config", "base_model",
                     "merged_adapters")
    ),
    Upstream("load_adapter", MODEL, "{model}.load_adapter(...)", stays=True,
             keywords={"model_id": "source=", **_LOADING, **_OF_THE_HUB}, source=True, placed=2,
             others=tuple(_LOADING)),
    Upstream("model", MODEL, "{model}.base_model",
             "the base itself; PEFT has its tuner in between"),
    Upstream("peft_type", MODEL, "{model}.active_peft_config.peft_type"),
    *(Upstream(name, MODEL, "{model}.adapters[name].modules", "all modules that it changes")
      for name in ("targeted_module_names", "targeted_parameter_names")),
    Upstream("prompt_encoder", MODEL, "{model}.state_dict()", "the virtual tokens are in it"),
    Upstream("word_embeddings", MODEL, "{model}.base_model.get_input_embeddings()"),
    *(Upstream(name, MODEL, "", "nothing takes its place: it belongs to PEFT's own layers")
      for name in ("prefix", "tuner_layer_cls", "target_module_mapping", "uses_shared_state",
                   "special_peft_forward_args", "prompt_tokens", "transformer_backbone_name")),
    Upstream("base_model_prepare_inputs_for_generation", MODEL,
             "{model}.base_model.prepare_inputs_for_generation"),
    Upstream("active_adapters", MODEL, "{model}.active_adapters()", "a method, as in transformers"),
    Upstream("has_active_enabled_adapter", MODEL, "bool({model}.active_adapters())"),
    Upstream("unload", MODEL, "{model}.detach()", "the base as before the first adapter"),
    Upstream("get_layer_status", MODEL, "{model}.adapters", _ON_ADAPTERS),
    Upstream("get_model_status", MODEL, "{model}.adapters", _ON_ADAPTERS),
    Upstream("modules_to_save", MODEL, "{model}.adapters[name].modules",
             "all modules that it changes"),
    Upstream("set_requires_grad", MODEL, "{model}.load_adapter(..., trainable=True)",
             "say it where the adapter is loaded"),
    Upstream("disable_adapter_layers", MODEL, "{model}.disable_adapters()"),
    Upstream("enable_adapter_layers", MODEL, "{model}.enable_adapters()"),
    Upstream("prepare_model_for_gradient_checkpointing", MODEL, "", "not needed: leave it out"),
    Upstream("base_model_torch_dtype", MODEL, "{model}.dtype", "the base's"),
    Upstream("create_or_update_model_card", MODEL, "{model}.push_to_hub(...)", "writes the card"),
    Upstream("get_prompt", MODEL, "{model}.state_dict()", "the virtual tokens are in it"),
    Upstream("get_prompt_embedding_to_save", MODEL,
             "adapterdock.get_peft_model_state_dict({model}, name)", "what is saved"),
    Upstream("inject_adapter", MODEL, "{model}.add_adapter(name, config)"),
    Upstream("subtract_mutated_init", MODEL, "",
             "nothing takes its place: save such an adapter with PEFT, which converts it"),
    Upstream("supports_lora_conversion", MODEL, "{model}.save_composition(folder, name)",
             "a composition as one LoRA"),
    # transformers
    Upstream("load_adapter", TRANSFORMERS,
             "AdaptedModel({model}).load_adapter(source, name); set_adapter(name)",
             "a loaded adapter is not active until it is chosen",
             keywords={"peft_model_id": "source=", "is_trainable": "trainable=",
                       "adapter_kwargs": "storage_options=, or a revision in the source",
                       "low_cpu_mem_usage": _LOADING["low_cpu_mem_usage"],
                       "load_config": "leave it out", **_OF_THE_HUB},
             source=True),
    Upstream("add_adapter", TRANSFORMERS, "AdaptedModel({model}).add_adapter(name, config)",
             "the name comes first; " + _CREATED, keywords={"adapter_config": "peft_config="}),
    Upstream("set_adapter", TRANSFORMERS, "{model}.set_adapter(...)", stays=True, placed=1,
             keywords={"adapter_name": "adapter="}),
    Upstream("disable_adapters", TRANSFORMERS, "{model}.disable_adapters()", stays=True),
    Upstream("enable_adapters", TRANSFORMERS, "{model}.enable_adapters()", stays=True),
    Upstream("active_adapters", TRANSFORMERS, "{model}.active_adapters()", stays=True),
    Upstream("delete_adapter", TRANSFORMERS, "{model}.delete_adapter(...)", stays=True, placed=1),
    Upstream("get_adapter_state_dict", TRANSFORMERS,
             "adapterdock.get_peft_model_state_dict({model}, name)"),
    Upstream("enable_peft_hotswap", TRANSFORMERS, "{model}.compile(max_rank=...)",
             "and load_adapter(..., hotswap=True)"),
)  # fmt: skip


_SAME = "the same"


def _cell(ours: str) -> str:
    return ours if ours in ("", _SAME) else f"`{written(ours)}`"


@cache
def by_name(owner: str) -> Mapping[str, Upstream]:
    """The names of one owner."""
    return {one.name: one for one in NAMES if one.owner == owner}


def instead(name: str) -> str | None:
    """What to use for a name that a model of PEFT's or transformers' has and ours lacks, in a
    sentence; ``None`` for any other name."""
    known = by_name(MODEL).get(name) or by_name(TRANSFORMERS).get(name)
    if known is None or known.stays:
        return None
    if not known.ours:
        return known.note[:1].upper() + known.note[1:]
    return f"Use `{written(known.ours)}`" + (f": {known.note}" if known.note else "")


def written(ours: str, model: str = "model") -> str:
    """What to write here, for a model of this name."""
    return ours.replace("{model}", model)


def table() -> str:
    """The names as a table of Markdown, one row for what is written here."""
    rows = ["| theirs | ours | note |", "|---|---|---|"]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in NAMES:
        said = one.note or ("stays as it is" if one.stays else "")
        more = "; ".join(f"`{name}=`: {what}" for name, what in one.keywords.items())
        where = "a source is `./folder` or `hf://org/name`" if one.source else ""
        note = "; ".join(part for part in (said, where, more) if part)
        key = (one.owner, _SAME if one.stays and note == "stays as it is" else one.ours, note)
        groups.setdefault(key, []).append(one.name)
    for (owner, ours, note), names in groups.items():
        before = "" if owner == PEFT else f"{owner}."
        theirs = ", ".join(f"`{before}{name}`" for name in names)
        rows.append(f"| {theirs} | {_cell(ours)} | {note} |")
    return "\n".join(rows)
