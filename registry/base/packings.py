"""The ways in which quantisers store a weight, and the sizes that follow from the stored shapes.

A quantised weight is several tensors: the packed values and their companions (scales, zero points,
codebooks, a description). Each :class:`Packing` has the name of the packed values, the companions
that prove that they are packed, and how (out, in) follows from the shapes. Sizes that do not follow
from the shapes, or on which they disagree, are ``None``: nothing is guessed.

Names and shapes follow transformers 5.23 (``integrations/*`` and ``quantizers/*``,
``serialized_names``) for bitsandbytes, FP8, fbgemm, EETQ, HIGGS, BitNet, Gemma, Metal, FP-Quant,
mxfp4, SINQ and compressed-tensors' names; torchao 0.18 (``prototype/safetensors``); and the
libraries' own storage formats for the others: AutoGPTQ and GPTQModel (``qweight`` packs the
inputs of ``nn.Linear`` into rows of int32, Marlin's ``B`` in tiles of 16), AutoAWQ (GEMM packs the
outputs into columns, GEMV the inputs), compressed-tensors (``pack-quantized``,
``nvfp4-pack-quantized``, ``mxfp4-pack-quantized``), HQQ, optimum-quanto, AQLM, VPTQ, SpQR, MLX and
NVIDIA's ModelOpt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..files.conversion import Shape
from ..files.facts import TensorInfo
from ..files.header import DTYPE_BITS

Quantisation = Mapping[str, Any]
"""The ``quantization_config`` of config.json."""

FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
BYTES = frozenset({"I8", "U8"})
WORDS = frozenset({"I16", "U16", "I32", "U32"})
ANY = FLOAT8 | BYTES | WORDS | {"F16", "BF16", "F32", "F64", "F8_E8M0", "I64", "U64"}


@dataclass(frozen=True)
class Stored:
    """One packed weight as it is stored: its ``values``, the ``stem`` that their names and those of
    the companions among ``tensors`` share, the config's ``quantisation``, and the sizes that the
    file states (``registry.base.reported_sizes``)."""

    values: TensorInfo
    stem: str
    tensors: Mapping[str, TensorInfo]
    quantisation: Quantisation
    reported: Shape | None = None

    def companion(self, ending: str) -> TensorInfo | None:
        return self.tensors.get(self.stem + ending)

    def shape(self, ending: str) -> tuple[int, int]:
        """The shape of a companion; ``(0, 0)`` without one, and 1 for missing dimensions."""
        info = self.companion(ending)
        rows, columns, *_ = (0, 0) if info is None else (*info.shape, 1, 1)
        return rows, columns

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows and columns of the values. Raises :class:`ValueError` for other dimensions."""
        rows, columns = self.values.shape
        return rows, columns

    @property
    def bytes(self) -> int:
        return math.prod(self.values.shape) * DTYPE_BITS[self.values.dtype] // 8


Sizes = Callable[[Stored], "Shape | None"]
"""(out, in) of a packed weight; experts have one dimension more. May raise :class:`ValueError`
where a tensor has other dimensions than this packing gives it."""


@dataclass(frozen=True)
class Packing:
    """One way to store a weight.

    ``values`` and ``needs`` are the endings of the tensors' names after their ``stem``; ``weight``
    is the ending of the unpacked weight (``None``: torchao's, see :meth:`weight_of`).
    """

    values: str
    needs: tuple[str, ...]
    dtypes: frozenset[str]
    sizes: Sizes
    weight: str | None = ".weight"

    def stem(self, name: str, info: TensorInfo, tensors: Container[str]) -> str | None:
        """The common part of the names of this weight's tensors, if ``name`` is its values'."""
        if not name.endswith(self.values) or info.dtype not in self.dtypes:
            return None
        stem = name[: len(name) - len(self.values)]
        return stem if all(stem + need in tensors for need in self.needs) else None

    def weight_of(self, stem: str) -> str:
        """The weight's name; torchao's ``q_proj._weight`` is ``q_proj.weight``."""
        if self.weight is not None:
            return stem + self.weight
        module, dot, own = stem.rpartition(".")
        return module + dot + own.removeprefix("_")


COMPANION = re.compile(
    # bitsandbytes
    r"weight\.(nested_)?(absmax|quant_map)|weight\.quant_state\.\w+|SCB|CB|weight_format"
    # GPTQ, AWQ, Marlin
    r"|q?scales|qzeros|scaled_zeros|g_idx|perm|s|workspace|q_(perm|invperm|scale|scale_max|groups)"
    r"|(q_)?group_map"
    # FP8, compressed-tensors, ModelOpt, Quark, Gemma
    r"|scale|qscale_(weight|act)|(weight|input|output)_scales?(_(inv|ub|2))?"
    r"|(input_|output_)?activation_scale|(weight|input|output)_(global_scale|zero_point|g_idx)"
    r"|weight_shape|scale_packed|meta|bitmask|row_offsets|shape|embedding_scale|pre_quant_scale"
    # quanto
    r"|weight\._(scale|shift|zeropoint|data\.\w+)"
    # HQQ, SINQ
    r"|zero|nbits|group_size|axis|packing|view_as_float|unpack_view_dtype|quant_(scale|zero)"
    r"|(scale|zero)_q|compute_dtype|channel_wise|optimize|round_zero|stores_quant_config"
    r"|offload_meta|encoded_state_dict|meta(_scale|_zero)?[._]\w+|(scale|zero)_(scale|zero|shape)"
    # AQLM, VPTQ, SpQR, HIGGS, FP-Quant, MLX, Metal
    r"|codebooks|(res_|outlier_)?centroids\.weight|(res_|outlier_)?indices|weight_bias"
    r"|col_vals|col_ptrs|in_perm|buff[0-3]|tables2?|(act|weight)_global_scale"
    r"|(forward|backward)_hadamard_matrix|dqweight|q?biases"
)
"""Tensors at the module of a packed weight that belong to it, for all packings."""

OF_PARAMETER = re.compile(
    r"(?P<parameter>.+?)_(scales?|scale_inv|activation_scale|input_scale|zero_point)"
)
"""Companions of a packed parameter that is not a module's weight, as in experts."""

OF_TORCHAO = re.compile(
    r"_(?P<parameter>\w+?)_(scale|scale_and_zero|zero_point|per_tensor_scale|act_per_tensor_scale"
    r"|act_pre_scale|act_quant_scale|act_quant_zero_point|sparse_metadata|group_scale|group_zero"
    r"|row_scale)"
)
"""torchao's ``_weight_scale`` beside ``_weight_qdata``."""

OF_CACHE = re.compile(r"(.*\.)?([kqv]|[kv]_cache|[kv]_proj\.output|prob)_(scale|zero_point)")
"""Scales of a quantised key-value cache, which belong to no weight."""


def _unknown(stored: Stored) -> None:
    return None


def _reported(stored: Stored) -> Shape | None:
    return stored.reported


def _nibbles(stored: Stored) -> Shape | None:
    """bitsandbytes, 4 bits: flat, in elements of any dtype; only the description has the sizes."""
    shape = stored.reported or ()
    return shape if math.prod(shape) in (2 * stored.bytes, 2 * stored.bytes - 1) else None


def _as_stored(stored: Stored) -> Shape:
    return stored.values.shape


def _scaled_rows(stored: Stored) -> Shape | None:
    """bitsandbytes, 8 bits: a scale for each row."""
    rows, columns = stored.matrix
    return (rows, columns) if stored.shape(".SCB")[0] == rows else None


def _turned(stored: Stored) -> Shape | None:
    """EETQ stores (in, out)."""
    rows, columns = stored.matrix
    return (columns, rows) if stored.shape(".weight_scales")[0] == columns else None


def _halves(scale: str, *blocks: int) -> Sizes:
    """Two 4-bit values in a byte, and a scale for each block of them in a row."""

    def sizes(stored: Stored) -> Shape | None:
        rows, columns = stored.matrix
        scaled, groups = stored.shape(scale)
        known = scaled == rows and any(groups * block == 2 * columns for block in blocks)
        return (rows, 2 * columns) if known else None

    return sizes


def _gptq_or_awq(stored: Stored) -> Shape | None:
    """The sizes of scales and zero points show which of the two sizes is packed."""
    rows, columns = stored.matrix
    groups, out = stored.shape(".scales")
    zeros, packed = stored.shape(".qzeros")
    if stored.values.dtype == "U8":
        return _halves(".scales", 16, 32)(stored)  # FP-Quant
    if stored.values.dtype not in ("I32", "U32"):
        return None  # tiles, padded
    if out == columns:
        inner = _exact(rows * 32, _exact(packed * 32, columns))
        order = stored.shape(".g_idx")[0] or inner
        return (columns, order) if order and inner in (0, order) else None
    if (zeros, packed) == (groups, columns) and _exact(columns * 32, out) in (2, 3, 4, 8):
        return (out, rows)  # AWQ's GEMM packs the outputs
    inner = _exact(columns * 32, _bits(stored.quantisation))
    return (rows, inner) if inner and groups == zeros == rows else None  # its GEMV the inputs


def _marlin(stored: Stored) -> Shape | None:
    """Tiles of 16 x 16 values."""
    rows, columns = stored.matrix
    out = stored.shape(".s")[1]
    return (out, rows * 16) if out and _exact(columns * 2, out) in (4, 8) else None


def _compressed(stored: Stored) -> Shape | None:
    """compressed-tensors: int32 of several columns, or bytes of two 4-bit floats."""
    if stored.values.dtype == "U8":
        return _halves(".weight_scale", 16, 32)(stored)
    rows, columns = stored.matrix
    scaled, groups = stored.shape(".weight_scale")
    schemes = _schemes(stored.quantisation)
    if stored.reported is not None:
        return stored.reported if stored.reported[0] == rows else None
    if len(schemes) != 1 or scaled not in (1, rows) or stored.companion(".meta") is not None:
        return None
    bits, group = schemes.pop()
    inner = columns * _exact(32, bits)
    return (rows, inner) if inner and (groups == 1 or groups * group == inner) else None


def _schemes(quantisation: Quantisation) -> set[tuple[int, int]]:
    """(bits, group size) of the weights, over all of ``config_groups``; 0 where not set."""
    groups = quantisation.get("config_groups")
    every = cast("Mapping[str, Any]", groups).values() if isinstance(groups, Mapping) else ()
    found: set[tuple[int, int]] = set()
    for group in every:
        known = isinstance(group, Mapping)
        weights = cast("Mapping[str, Any]", group).get("weights") if known else None
        if isinstance(weights, Mapping):
            said = cast("Mapping[str, Any]", weights)
            found.add((_number(said, "num_bits"), _number(said, "group_size")))
    return found


def _bits(quantisation: Quantisation) -> int:
    return _number(quantisation, "bits") or _number(quantisation, "w_bit")


def _number(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    return value if type(value) is int and value > 0 else 0


def _exact(number: int, by: int) -> int:
    """``number / by``; 0 where that is not a whole number."""
    return number // by if by and number % by == 0 else 0


def _codebooks(stored: Stored) -> Shape | None:
    """AQLM: one code for each block of out x in values."""
    books = stored.companion(".codebooks")
    _, _, out, inner = (0, 0, 0, 0) if books is None else books.shape
    blocks, across, _ = stored.values.shape
    return (blocks * out, across * inner)


def _higgs(stored: Stored) -> Shape | None:
    """The outputs are packed, and each has its own scale."""
    return (stored.shape(".scales")[0], stored.matrix[1])


def _bytes_with_scale(stored: Stored) -> Shape | None:
    """BitNet packs four rows into one, ModelOpt two columns; for Gemma, no size shows it."""
    rows, columns = stored.matrix
    if stored.quantisation.get("quant_method") == "bitnet":
        return (4 * rows, columns) if stored.shape(".weight_scale") == (1, 1) else None
    return _halves(".weight_scale", 16)(stored)


def _words_with_scales(stored: Stored) -> Shape | None:
    """MLX and Metal: words of several columns; the size of the groups is in the config."""
    rows, columns = stored.matrix
    scaled, groups = stored.shape(".scales")
    inner = groups * _number(stored.quantisation, "group_size")
    known = scaled == rows and inner and columns * 32 == inner * _bits(stored.quantisation)
    return (rows, inner) if known else None


def _blocks(stored: Stored) -> Shape | None:
    """mxfp4 (gpt-oss): (experts, out, groups, 16), two values in a byte, is (experts, in, out)
    unpacked; transformers' ``convert_moe_packed_tensors``."""
    experts, out, groups, half = stored.values.shape
    scales = stored.companion("_scales")
    known = scales is not None and scales.shape == (experts, out, groups)
    return (experts, groups * half * 2, out) if known else None


def _torchao(stored: Stored) -> Shape | None:
    """Float8 is stored as it is; for other classes the file's metadata has the sizes."""
    return stored.reported or (stored.values.shape if stored.values.dtype in FLOAT8 else None)


SCALES = (".weight_scale_inv", ".weight_scale", ".scale", ".qscale_weight", ".weight_scale_2")

PACKINGS = (
    Packing(".weight", (".weight.absmax",), ANY, _nibbles),  # bitsandbytes, 4 bits
    Packing(".weight", (".SCB",), BYTES, _scaled_rows),  # bitsandbytes, 8 bits
    *(Packing(".weight", (scale,), FLOAT8, _as_stored) for scale in SCALES),
    Packing(".weight", (".weight_scale",), frozenset({"I8"}), _as_stored),
    Packing(".weight", (".weight_scale",), frozenset({"U8"}), _bytes_with_scale),
    Packing(".weight", (".weight_scale",), WORDS, _unknown),  # Quark
    Packing(".weight", (".scale",), BYTES, _halves(".scale", 32)),  # experts of DeepSeek V4
    Packing(".weight", (".weight_scale_inv",), BYTES, _halves(".weight_scale_inv", 32)),
    Packing(".weight", (".weight_scales",), BYTES, _turned),  # EETQ
    Packing(".weight", (".scales", ".tables"), WORDS, _higgs),
    Packing(".weight", (".scales",), WORDS, _words_with_scales),
    Packing(".weight._data", (".weight._scale",), BYTES | FLOAT8, _as_stored),  # quanto
    Packing(".weight._data._data", (".weight._scale",), BYTES, _unknown),
    Packing(".weight_packed", (), WORDS | BYTES, _compressed),
    Packing(".qweight", (), WORDS | BYTES, _gptq_or_awq),
    Packing(".dqweight", (), ANY, _as_stored),
    Packing(".B", (".s",), WORDS, _marlin),
    Packing(".W_q", (), ANY, _reported),
    Packing(".codes", (".codebooks",), WORDS | BYTES, _codebooks),
    Packing(".indices", (".centroids.weight",), ANY, _unknown),  # VPTQ
    Packing(".dense_weights", (".row_offsets",), ANY, _unknown),  # SpQR
    Packing(".compressed", (".bitmask",), ANY, _unknown),  # compressed-tensors, sparse
    Packing(".embedding_quantized", (".embedding_scale",), frozenset({"I8"}), _as_stored),
    Packing(".embedding_quantized", (".embedding_scale",), frozenset({"U8"}), _unknown),
    Packing("_qdata", (), FLOAT8 | BYTES | WORDS, _torchao, None),
    Packing("_qdata_and_metadata", (), FLOAT8 | BYTES, _unknown, None),
    Packing("_packed_weights", (), BYTES | WORDS, _unknown, None),
    Packing("_blocks", ("_scales",), BYTES, _blocks, ""),
    Packing("", ("_scale_inv",), FLOAT8, _as_stored, ""),  # experts in FP8
    Packing("", ("_scale",), FLOAT8, _as_stored, ""),  # and fbgemm's
)
