"""llama.cpp, as the package ``xllamacpp`` runs it: bases written as GGUF, and what it answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

LOCAL_PYTHON = os.environ.get("ADAPTERDOCK_TEST_LOCAL", "")
"""A Python that has ``xllamacpp`` and ``mlx-lm``, which `make test-serving` installs."""

_RUN = """
import json, sys
import xllamacpp
from xllamacpp.xllamacpp import llama_flash_attn_type

asked = json.loads(sys.stdin.read())
params = xllamacpp.CommonParams()
params.model.path = asked["model"]
params.n_ctx, params.n_parallel, params.warmup, params.cache_prompt = 512, 1, False, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
adapters = []
for path in asked["adapters"]:
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path, info.scale = path, 1.0
    adapters.append(info)
params.lora_adapters = adapters
server = xllamacpp.Server(params)
answers = []
for request in asked["requests"]:
    kind = server.handle_chat_completions if "messages" in request else server.handle_completions
    answers.append(json.loads(json.dumps(kind(request))))
print("ANSWERS" + json.dumps(answers))
"""


def asked(model: Path, adapters: Sequence[Path], requests: Sequence[dict[str, Any]]) -> list[Any]:
    """llama.cpp's answers with these adapters, in a process of its own."""
    wanted = {"model": str(model), "adapters": [*map(str, adapters)], "requests": [*requests]}
    done = subprocess.run(
        [LOCAL_PYTHON, "-c", _RUN],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("ANSWERS"))


def log_probabilities(
    model: Path, adapters: Sequence[Path], prompts: Sequence[Sequence[int]], vocabulary: int
) -> torch.Tensor:
    """The logarithms of all next tokens' probabilities after each prompt (prompts, vocabulary)."""
    common = {"n_predict": 1, "n_probs": vocabulary, "temperature": 0.0, "cache_prompt": False}
    requests = [{"prompt": [*prompt], **common} for prompt in prompts]
    found = torch.full((len(prompts), vocabulary), float("nan"))
    for row, answer in zip(found, asked(model, adapters, requests), strict=True):
        for token in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            row[token["id"]] = token["logprob"]
    return found


def write_base_gguf(model: Any, path: Path, architecture: str) -> Path:
    """A tiny base as ``convert_hf_to_gguf.py`` writes it, float32, with a vocabulary of letters.

    Names are those of gguf's own map; rows of q and k are turned as ``LlamaModel.permute`` does.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_vocabulary(writer, config.vocab_size)
    tied = config.tie_word_embeddings
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        array = value.detach().float().numpy()
        for part, count in (("q_proj", heads), ("k_proj", groups)):
            if architecture == "llama" and f".{part}." in name:
                turned = array.reshape(count, 2, array.shape[0] // count // 2, *array.shape[1:])
                array = turned.swapaxes(1, 2).reshape(array.shape)
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        writer.add_tensor(found, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: Any, size: int) -> None:
    import gguf

    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    letters = [chr(ord("A") + n) for n in range(size - 3)]
    writer.add_token_list(["<unk>", "<s>", "</s>", *letters])
    writer.add_token_scores([0.0] * size)
    first = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    writer.add_token_types([*first, *([kinds.NORMAL] * (size - 3))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
