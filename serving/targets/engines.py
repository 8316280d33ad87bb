"""The committed table: engines, their versions, and what each serves.

vLLM's rows were read from 0.29.0, 0.31.0 and 0.32.0 (``vllm/lora/peft_helper.py``,
``lora_model.py``, ``utils.py``) and 0.32.0 was run; ``tests/serving_real/test_vllm_source.py``
compares them with an installed vLLM. 0.33.0 has the code of 0.32.0. SGLang was read from 0.5.23
(``srt/lora/``), mlx-lm from 0.32.2 (``tuner/utils.py``). Ray 2.60 pins vLLM 0.29.0; NIM 2 passes
its options to the vLLM that is in its image, which NVIDIA does not name, so it is held to the
oldest row of vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .engine import Engine, Feature, How, Row, Version, unserved

_REFUSES, _MISREADS, _CANNOT, _UNKNOWN = How.REFUSES, How.MISREADS, How.CANNOT, How.UNKNOWN

_ANYWHERE: Mapping[Feature, How] = unserved(
    BDLORA=_CANNOT,
    QALORA=_CANNOT,
    VELORA=_CANNOT,
    REPLICATION=_CANNOT,
    KIND=_CANNOT,
    NEW=_CANNOT,
    VOCABULARY=_CANNOT,
    CLASS=_UNKNOWN,
    OLDER=_UNKNOWN,
    PREFIX=_UNKNOWN,
    QUANTISED=_UNKNOWN,
)
"""What no engine here serves, or no one tried."""

# -- vLLM -----------------------------------------------------------------------------------------

_VLLM_032 = unserved(
    _ANYWHERE,
    DORA=_REFUSES,
    LORA_BIAS=_REFUSES,
    BIAS=_REFUSES,
    SAVED=_REFUSES,
    HEAD=_REFUSES,
    INIT=_REFUSES,
    ALORA=_REFUSES,
    BDLORA=_REFUSES,
    QALORA=_REFUSES,
    VELORA=_REFUSES,
    REPLICATION=_REFUSES,
    TOKENS=_REFUSES,
    PARAMETERS=_UNKNOWN,
    EXPERTS=_UNKNOWN,
    EMBEDDING=_REFUSES,
    OUTPUT=_REFUSES,
    KIND=_REFUSES,
    TOWER=_MISREADS,
    STORED=_REFUSES,
    TYING=_MISREADS,
    NAMES=_MISREADS,
    KEYS=_REFUSES,
    FIELDS=_REFUSES,
    FILES=_REFUSES,
)
_VLLM_031 = unserved(
    _VLLM_032,
    LORA_BIAS=_MISREADS,
    INIT=_MISREADS,
    ALORA=_MISREADS,
    BDLORA=_MISREADS,
    QALORA=_MISREADS,
    REPLICATION=_MISREADS,
    RANKS=_MISREADS,
    SCALES=_MISREADS,
)
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_HEADS = frozenset({"classifier", "score"})
_OLDEST = Row((0, 29), _VLLM_031, models="vllm 0.29", ranks=_VLLM_RANKS, limit=16)
VLLM = Engine(
    "vllm",
    "vLLM",
    (
        _OLDEST,
        replace(_OLDEST, since=(0, 31), heads=_HEADS, models="vllm 0.31"),
        Row((0, 32), _VLLM_032, _HEADS, "vllm 0.32", ranks=_VLLM_RANKS, limit=16),
    ),
    max_rank="--max-lora-rank",
    max_loras="--max-loras",
)
NEWEST: Mapping[str, Version] = {"vllm": (0, 33)}
"""The newest version that a row was compared with, where that is not the row's own."""

# -- the others -----------------------------------------------------------------------------------

_SGLANG = unserved(
    _ANYWHERE,
    DORA=_REFUSES,
    LORA_BIAS=_MISREADS,
    BIAS=_CANNOT,
    SAVED=_MISREADS,
    HEAD=_MISREADS,
    INIT=_MISREADS,
    ALORA=_MISREADS,
    BDLORA=_MISREADS,
    REPLICATION=_MISREADS,
    TOKENS=_MISREADS,
    PARAMETERS=_UNKNOWN,
    EXPERTS=_UNKNOWN,
    RANKS=_MISREADS,
    SCALES=_MISREADS,
    RSLORA=_MISREADS,
    TOWER=_UNKNOWN,
    QKV=_REFUSES,
    PATTERN=_REFUSES,
    STORED=_MISREADS,
    TYING=_MISREADS,
    NAMES=_UNKNOWN,
    KEYS=_MISREADS,
    FIELDS=_REFUSES,
    FILES=_REFUSES,
)
SGLANG = Engine(
    "sglang",
    "SGLang",
    (Row((0, 5, 23), _SGLANG),),
    max_rank="--max-lora-rank",
    max_loras="--max-loras-per-batch",
)
_NIM = unserved(_VLLM_031, EMBEDDING=_UNKNOWN, OUTPUT=_UNKNOWN)
NIM = Engine(
    "nim",
    "NIM",
    (replace(_OLDEST, since=(2,), unserved=_NIM, models=""),),
    max_rank="--max-lora-rank",
    max_loras="--max-loras",
)
RAY_LLM = Engine(
    "ray-llm",
    "Ray Serve LLM",
    (replace(_OLDEST, since=(2, 60)),),
    max_rank="max_lora_rank",
    max_loras="max_loras",
)

_DENSE = unserved(
    _ANYWHERE,
    DORA=_CANNOT,
    LORA_BIAS=_CANNOT,
    BIAS=_CANNOT,
    SAVED=_CANNOT,
    HEAD=_CANNOT,
    INIT=_CANNOT,
    ALORA=_CANNOT,
    TOKENS=_CANNOT,
    PARAMETERS=_CANNOT,
    EXPERTS=_CANNOT,
    EMBEDDING=_CANNOT,
    TIED=_CANNOT,
    TOWER=_CANNOT,
    STORED=_CANNOT,
    TYING=_CANNOT,
    CLASS=_CANNOT,
)
"""For what ``adapterdock export`` writes: its files have the names and scales of the engine."""
_PROVED = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
)
"""The architectures that it writes; ``serving/export/architectures.py`` has their names."""
LLAMA_CPP = Engine(
    "llama.cpp",
    "llama.cpp",
    (Row((4000,), _DENSE, architectures=_PROVED),),
    dtype=False,
)
_MLX = unserved(_DENSE, OUTPUT=_CANNOT)
MLX = Engine("mlx", "mlx-lm", (Row((0, 32), _MLX, architectures=_PROVED),), dtype=False)

ENGINES: Mapping[str, Engine] = {
    engine.name: engine for engine in (VLLM, SGLANG, NIM, RAY_LLM, LLAMA_CPP, MLX)
}
