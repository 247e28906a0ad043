"""Calls what is compiled: the routed experts of a layer, linear products, and the small steps between them, on a CPU.

Equal to their definitions (`moe.plain_experts`, `F.linear`, `norm.rms_norm_plain`, `rope.apply_rotary`, `moe.Router`) up to
rounding; a row's result does not depend on the other rows, bit for bit.
Axes: N tokens, K experts a token, E experts, D width, I inner features, O features out, C features in, H heads, d features a
head, R of them turned.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from llada_uni.backbone.native import build
from llada_uni.backbone.native.build import Loaded

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2, torch.uint8: 3}  # of stored weights; uint8: int4, two a byte
INPUTS = (torch.float32, torch.bfloat16)
MOST_SHARED = 64  # heads that share keys and values: ATTEND_ROWS of attention.h


class Matrices(NamedTuple):
    """E matrices [O, C] as they are stored. scale, group: for int8 and int4 (quantized_formats.py)."""

    values: Tensor
    outputs: int
    inputs: int
    scale: Tensor | None = None
    group: int = 0

    @classmethod
    def plain(cls, weight: Tensor) -> Matrices:
        """Of weights [..., O, C] in float32 or bfloat16."""
        return cls(weight, weight.shape[-2], weight.shape[-1])

    def stored(self) -> _Stored:
        scale = None if self.scale is None else self.scale.data_ptr()
        return _Stored(self.values.data_ptr(), scale, self.outputs, self.inputs, self.group)


class _Stored(ctypes.Structure):
    """`Stored` of experts.cpp."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("group", ctypes.c_int64),
    )


def reason() -> str:
    """Why there are no compiled products; "" where there are."""
    return _library().reason


def available() -> bool:
    return _library().library is not None


def described() -> str:
    """What the products were compiled for; they must be `available`."""
    library = _library().library
    assert library is not None
    pairs, lanes = divmod(library.llada_uni_lanes(), 1000)
    return f"compiled for vectors of {lanes} float32{', with products of bfloat16 pairs' if pairs else ''}"


def takes(x: Tensor, *weights: Tensor) -> bool:
    """Whether these are plain tensors of a CPU that the products can read where they lie."""
    plain = all(type(w) in (Tensor, torch.nn.Parameter) and w.is_cpu and w.is_contiguous() for w in weights)
    return plain and type(x) in (Tensor, torch.nn.Parameter) and x.is_cpu and x.dtype in INPUTS


def experts(x: Tensor, share: Tensor, chosen: Tensor, gate: Matrices, up: Matrices, down: Matrices) -> Tensor:
    """x [N, D] in float32 or bfloat16, share [N, K], chosen [N, K] int64 -> [N, D] in the dtype of x."""
    x, share, chosen = x.contiguous(), share.to(torch.float32).contiguous(), chosen.contiguous()
    out = torch.empty_like(x)
    stored = (gate.stored(), up.stored(), down.stored())
    count = gate.values.shape[0]
    code = _functions().experts(
        KINDS[gate.values.dtype],
        *map(ctypes.byref, stored),
        x.data_ptr(),
        x.dtype == torch.float32,
        chosen.data_ptr(),
        share.data_ptr(),
        *chosen.shape,
        count,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    _check(code)
    return out


def linear(x: Tensor, matrix: Matrices) -> Tensor:
    """x [N, C] in float32 or bfloat16 times one matrix [O, C], transposed -> [N, O] in the dtype of x."""
    x = x.contiguous()
    out = x.new_empty(x.shape[0], matrix.outputs)
    stored = matrix.stored()
    wide = x.dtype == torch.float32
    where = (x.data_ptr(), wide, x.shape[0], out.data_ptr())
    _check(_functions().linear(KINDS[matrix.values.dtype], ctypes.byref(stored), *where, torch.get_num_threads()))
    return out


def plain(matrix: Matrices, expert: int, dtype: torch.dtype) -> Tensor:
    """The weights of one expert that int4 values stand for, [O, C] in float32 or bfloat16; in memory [C, O]."""
    out = torch.empty(matrix.inputs, matrix.outputs, dtype=dtype)
    wide = dtype == torch.float32
    _functions().plain(ctypes.byref(matrix.stored()), expert, wide, out.data_ptr(), torch.get_num_threads())
    return out.t()


class Sequence(ctypes.Structure):
    """`Sequence` of attention.h: new tokens of a stream and the cache of their sequence."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("layer_stride", ctypes.c_int64),
        ("group_stride", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("stop", ctypes.c_int64),
        ("ends", ctypes.POINTER(ctypes.c_int64)),
        ("blocks", ctypes.c_int64),
    )


def attends(heads: int, groups: int, width: int) -> bool:
    """Whether `attend` takes heads of this width, and so many for a group."""
    return width % _functions().lanes == 0 and heads <= MOST_SHARED * groups


def attend(sequences: ctypes.Array[Sequence], layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of a packed stream, see `cached_attention.PackedCache.attend`: all float32, the last axis contiguous.

    queries [1, H, N, d], keys and values [1, G, N, d] -> [1, H, N, d], in memory [N, H, d].
    """
    _, heads, tokens, width = queries.shape
    out = queries.new_empty(1, tokens, heads, width)
    lying = [number for part in (queries, keys, values) for number in (part.data_ptr(), part.stride(2), part.stride(1))]
    where = (heads, keys.shape[1], width, out.data_ptr(), torch.get_num_threads())
    _functions().attend(ctypes.byref(sequences), len(sequences), layer, *lying, *where)
    return out.transpose(1, 2)


class LayerWeights(ctypes.Structure):
    """`LayerWeights` of layer.h: where the weights of a layer lie, and its sizes. Without experts the router is empty."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm_before", "norm_after", "norm_query", "norm_key", "router_bias")),
        *((name, _Stored) for name in ("query_key_value", "dense", "router", "gate", "up", "down")),
        *((name, _Stored) for name in ("shared_gate", "shared_up", "shared_down")),
        *((name, ctypes.c_int64) for name in ("heads", "groups", "width", "turned")),
        *((name, ctypes.c_int64) for name in ("top_k", "router_groups", "kept_groups", "normalized")),
        ("scaling", ctypes.c_float),
        ("eps", ctypes.c_float),
    )


def stored(weight: Tensor) -> _Stored:
    """A plain weight [..., O, C] for `LayerWeights`."""
    return Matrices.plain(weight).stored()


def layer(
    weights: LayerWeights, x: Tensor, tables: tuple[Tensor, Tensor], sequences: ctypes.Array[Sequence], number: int
) -> Tensor:
    """x [1, N, D] through the layer of this number, tables [1, N, 1, R]: as `model.Layer` with a PackedCache, all float32."""
    x, cos, sin = x.contiguous(), tables[0].contiguous(), tables[1].contiguous()
    out = torch.empty_like(x)
    given = (ctypes.byref(weights), x.data_ptr(), x.shape[1], cos.data_ptr(), sin.data_ptr())
    where = (ctypes.byref(sequences), len(sequences), number, out.data_ptr(), torch.get_num_threads())
    _check(_functions().layer(*given, *where))
    return out


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., D] / rms(x) * weight [D], all float32 -> the same shape."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    _functions().norm(x.data_ptr(), weight.data_ptr(), x.numel() // width, width, eps, out.data_ptr(), torch.get_num_threads())
    return out


def turn(fused: Tensor, weight: Tensor, tables: tuple[Tensor, Tensor], eps: float) -> Tensor:
    """The first H of the heads of fused [B, T, H', d], normalized with weight [H, d] and turned by tables [B, T, 1, R].

    -> [B, T, H, d], all float32.
    """
    fused, cos, sin = fused.contiguous(), tables[0].contiguous(), tables[1].contiguous()
    heads, total, width = weight.shape[0], *fused.shape[-2:]
    out = fused.new_empty(*fused.shape[:-2], heads, width)
    given = (fused.data_ptr(), weight.data_ptr(), cos.data_ptr(), sin.data_ptr())
    sizes = (fused.numel() // (total * width), heads, total, width, cos.shape[-1])
    _functions().turn(*given, *sizes, eps, out.data_ptr(), torch.get_num_threads())
    return out


def route(
    logits: Tensor, bias: Tensor, top_k: int, groups: int, kept_groups: int, normalize: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """logits [N, E] and bias [E] in float32 -> shares [N, K] float32 and experts [N, K] int64, as `moe.Router` chooses them."""
    logits = logits.contiguous()
    shares = logits.new_empty(logits.shape[0], top_k)
    chosen = torch.empty_like(shares, dtype=torch.int64)
    sizes = (*logits.shape, top_k, groups, kept_groups, normalize, scaling)
    where = (shares.data_ptr(), chosen.data_ptr(), torch.get_num_threads())
    _functions().route(logits.data_ptr(), bias.data_ptr(), *sizes, *where)
    return shares, chosen


def greedy(logits: Tensor, forbidden: int | None) -> tuple[Tensor, Tensor]:
    """logits [N, V] float32 -> the likeliest token of each row but the forbidden one [N] int64, and its probability [N]."""
    logits = logits.contiguous()
    share = logits.new_empty(logits.shape[0])
    choice = torch.empty_like(share, dtype=torch.int64)
    where = (choice.data_ptr(), share.data_ptr(), torch.get_num_threads())
    _functions().greedy(logits.data_ptr(), *logits.shape, -1 if forbidden is None else forbidden, *where)
    return choice, share


class _Functions(NamedTuple):
    experts: ctypes._NamedFuncPointer
    linear: ctypes._NamedFuncPointer
    norm: ctypes._NamedFuncPointer
    turn: ctypes._NamedFuncPointer
    route: ctypes._NamedFuncPointer
    greedy: ctypes._NamedFuncPointer
    attend: ctypes._NamedFuncPointer
    plain: ctypes._NamedFuncPointer
    layer: ctypes._NamedFuncPointer
    lanes: int


@cache
def _library() -> Loaded:
    """What `build` loaded, unless it computes something else than it should."""
    loaded = build.loaded()
    if loaded.library is None or _computes(_bind(loaded.library)):
        return loaded
    return Loaded(None, "the compiled products give wrong results on this processor")


@cache
def _functions() -> _Functions:
    library = _library().library
    assert library is not None  # the caller asked `available`
    return _bind(library)


def _bind(library: ctypes.CDLL) -> _Functions:
    pointer, whole, long, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
    stored = ctypes.POINTER(_Stored)
    arguments = {
        "experts": [whole, stored, stored, stored, pointer, whole, pointer, pointer, long, long, long, pointer, whole],
        "linear": [whole, stored, pointer, whole, long, pointer, whole],
        "norm": [pointer, pointer, long, long, real, pointer, whole],
        "turn": [pointer, pointer, pointer, pointer, long, long, long, long, long, real, pointer, whole],
        "route": [pointer, pointer, long, long, long, long, long, whole, real, pointer, pointer, whole],
        "greedy": [pointer, long, long, long, pointer, pointer, whole],
        "layer": [ctypes.POINTER(LayerWeights), pointer, long, pointer, pointer, pointer, long, long, pointer, whole],
        "plain": [stored, long, whole, pointer, whole],
        "attend": [pointer, long, long, *[pointer, long, long] * 3, long, long, long, pointer, whole],
    }
    found = {name: getattr(library, f"llada_uni_{name}") for name in arguments}
    for name, types in arguments.items():
        found[name].argtypes = types
    return _Functions(**found, lanes=library.llada_uni_lanes() % 1000)


def _computes(functions: _Functions) -> bool:
    """One small product against torch: a compiler's, a processor's or an emulator's fault must not become wrong answers."""
    x = torch.arange(3 * 37, dtype=torch.float32).view(3, 37).sin()
    weight = torch.arange(13 * 37, dtype=torch.float32).view(13, 37).cos()
    out = torch.empty(3, 13, dtype=torch.float32)  # whatever the default is while a model is loaded
    stored = Matrices.plain(weight).stored()
    code = functions.linear(0, ctypes.byref(stored), x.data_ptr(), True, 3, out.data_ptr(), torch.get_num_threads())
    return code == 0 and torch.allclose(out, x @ weight.t(), atol=1e-4)


def _check(code: int) -> None:
    if code == 1:
        raise MemoryError("the compiled products found no working memory")
    if code:
        raise ValueError("an expert was chosen that is not there")
