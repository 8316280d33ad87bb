"""Small models made from code, adapters that PEFT made for them, and PEFT as the oracle."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.weights.tensors import AdapterTensors, read_bytes, read_file
from adapterdock.registry.files.facts import AdapterPlan
from safetensors.torch import save
from torch import nn

from support.attach import attach_adapter
from support.method_fit import planned


def word_tokenizer() -> Any:
    """A tokenizer of the tiny models' 61 words, ``w0`` to ``w60``."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(61)}, unk_token="w3"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w2")


def tensors_of(mapping: Mapping[str, torch.Tensor]) -> AdapterTensors:
    """These tensors as the loader reads them."""
    return read_bytes(save(dict(mapping)))


def tiny_llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**{**config, **changes})).eval()


def tiny_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2
    )
    return GPT2LMHeadModel(config).eval()


def tiny_bert(labels: int = 3) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.3,
    )
    return BertForSequenceClassification(config).eval()


def tiny_t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=61,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).eval()


class ConvNet(nn.Module):
    """Convolutions of 1, 2 and 3 dimensions, strided, padded, grouped, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.line = nn.Conv1d(8, 6, 3, bias=False)
        self.deep = nn.Conv3d(1, 2, (1, 2, 2))
        self.head = nn.Linear(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.grouped(x))
        x = self.line(x.flatten(2))
        x = self.deep(x.unsqueeze(1).unsqueeze(-1).expand(-1, -1, -1, -1, 3))
        return self.head(x.mean((2, 3, 4)))


class OneLayer(nn.Module):
    """One module called ``layer``, and an input for it: what adapters add to its answer adds up."""

    def __init__(self, layer: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.example = example

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def one_layer(kind: str) -> OneLayer:
    """``linear``, ``conv1d`` (Hugging Face's), ``conv``, ``grouped``, ``line`` (a convolution of
    one dimension) or ``embedding``."""
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    layers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(12, 8),
        "conv1d": lambda: Conv1D(8, 12),
        "conv": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
        "grouped": lambda: nn.Conv2d(4, 8, 3, groups=2),
        "line": lambda: nn.Conv1d(4, 6, 3, padding=1),
        "embedding": lambda: nn.Embedding(20, 8),
    }
    layer = layers[kind]()
    nn.init.normal_(layer.get_parameter("weight"), std=0.5)
    if getattr(layer, "bias", None) is not None:
        nn.init.normal_(layer.get_parameter("bias"))
    examples = {
        "conv": torch.randn(2, 4, 7, 7),
        "grouped": torch.randn(2, 4, 7, 7),
        "line": torch.randn(2, 4, 9),
        "embedding": torch.arange(10).view(2, 5),
    }
    return OneLayer(layer, examples.get(kind, torch.randn(3, 5, 12))).eval()


def tiny_conv() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet().eval()


def ids(rows: int = 2, length: int = 7, vocabulary: int = 61) -> torch.Tensor:
    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    """What each of the models above takes."""
    kind = type(model).__name__
    if isinstance(example := getattr(model, "example", None), torch.Tensor):
        return {"x": example}
    if kind == "ConvNet":
        generator = torch.Generator().manual_seed(1)
        return {"x": torch.randn(2, 3, 8, 8, generator=generator)}
    if kind == "ViTForImageClassification":
        generator = torch.Generator().manual_seed(1)
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    if kind == "T5ForConditionalGeneration":
        return {"input_ids": ids(), "decoder_input_ids": ids(length=4)}
    return {"input_ids": ids()}


def logits(model: Any, inputs: Mapping[str, torch.Tensor] | None = None, **more: Any) -> Any:
    """The model's answer to its usual inputs, without gradients (of an encoder: its states)."""
    with torch.no_grad():
        out = model(**(inputs or inputs_of(model)), **more)
    if isinstance(out, torch.Tensor):
        return out
    return out.logits if hasattr(out, "logits") else out[0]


def randomise(model: nn.Module, seed: int = 7, spread: float = 0.3) -> None:
    """Give everything that is trainable values that a training run could have given."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.data = parameter.data + noise.to(parameter)


@dataclass(frozen=True)
class Saved:
    """An adapter folder that PEFT wrote, and what PEFT answers with it (float32)."""

    folder: Path
    answer: torch.Tensor

    @property
    def file(self) -> Path:
        return self.folder / "adapter_model.safetensors"

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "adapter_config.json").read_text())

    def tensors(self) -> AdapterTensors:
        return read_file(self.file)

    def plan(self, base: nn.Module) -> AdapterPlan:
        layout = layout_of_model(base)
        return planned(self.config["peft_type"], self.config, self.tensors().header.tensors, layout)


def peft_saves(
    base: Any,
    folder: Path,
    *,
    seed: int = 7,
    change: Callable[[Any], None] | None = None,
    save: Mapping[str, Any] | None = None,
    kind: Any = None,
    **config: Any,
) -> Saved:
    """PEFT trains (at random) and saves a LoRA of ``config`` (or an adapter of the config class
    ``kind``) for a copy of ``base``; a fresh copy with PEFT loading that folder is the oracle."""
    from peft import LoraConfig, get_peft_model

    settings: dict[str, Any] = config if kind else {"r": 4, "lora_alpha": 8, **config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = get_peft_model(copy.deepcopy(base), (kind or LoraConfig)(**settings))
        randomise(trained, seed)
        if change is not None:
            change(trained)
        trained.save_pretrained(str(folder), **(save or {}))
    return Saved(folder, logits(peft_loads(base, folder), inputs_of(base)))


def peft_loads(base: Any, *folders: Path) -> Any:
    """PEFT with the adapters of these folders, named by them; the first is active."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, *others = folders
        model = PeftModel.from_pretrained(
            copy.deepcopy(base), str(first), adapter_name=first.name.replace(".", "_")
        )
        for folder in others:
            model.load_adapter(str(folder), adapter_name=folder.name.replace(".", "_"))
    return model.eval()


def attach(model: AdaptedModel, saved: Saved, name: str = "it", **options: Any) -> None:
    """Attach what PEFT saved, and make it the default."""
    plan = saved.plan(model.base_model)
    attach_adapter(model, name, plan, saved.tensors(), **options)
    model.set_adapter(name)


def adapted(base: nn.Module, saved: Saved, name: str = "it", **options: Any) -> AdaptedModel:
    model = AdaptedModel(base)
    attach(model, saved, name, **options)
    return model


def by_peft_name(model: AdaptedModel) -> dict[str, nn.Parameter]:
    """The parameters of base and adapters, those of adapters by PEFT's live names."""
    return {name.removeprefix("tuners."): p for name, p in model.named_parameters()}


def traces(base: nn.Module) -> dict[str, Any]:
    """Everything that attaching could leave behind: keys, hooks, instance dictionaries, types,
    flags, and every value."""
    found: dict[str, Any] = {}
    for name, module in base.named_modules(remove_duplicate=False):
        own = dict(vars(module))
        for part in ("_parameters", "_buffers", "_modules"):
            own[part] = {k: id(v) for k, v in own[part].items()}
        for part, value in own.items():
            if part.endswith(("_hooks", "_with_kwargs", "_always_called")):
                own[part] = list(value)
            elif part not in ("_parameters", "_buffers", "_modules"):
                own[part] = id(value) if not isinstance(value, (int, str, float)) else value
        found[name] = (type(module), own)
    found["state"] = {k: v.clone() for k, v in base.state_dict().items()}
    found["flags"] = [p.requires_grad for p in base.parameters()]
    return found


def same_traces(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.keys() != other.keys() or list(one["state"]) != list(other["state"]):
        return False
    values = all(torch.equal(one["state"][k], other["state"][k]) for k in one["state"])
    return values and all(one[k] == other[k] for k in one if k != "state")
