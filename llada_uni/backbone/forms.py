"""The forms in which a CPU computes products without gradients: all equal up to rounding, one of them fastest.

Few rows meet each weight while a block is generated, so what counts is how fast a form reads the weights, and that differs
by processor, library and shape:

- native: compiled here (native/); one call for a layer's experts. A row's result is the same to the bit in any company.
- grouped: torch's grouped product.   - loop: `x @ W.T`, expert by expert.   - transposed: `W @ x.T`, expert by expert.
- batched: neighbouring experts in one `bmm(W, x.T)`, their rows padded to those of the one that has most; no weight is copied.

`calibration` chooses, per shape of the weights and never per number of rows: so a request's float32 results do not depend on
its company (bit for bit in the native form, to the rounding of the library in the others). With gradients nothing here is used.
Axes: N tokens, K experts a token, M = N * K sorted pairs, E experts, D width, I inner, O and C features out and in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_uni.backbone import calibration
from llada_uni.backbone.calibration import Key
from llada_uni.backbone.grouped import Segments, combine, dispatch, sort_by_expert
from llada_uni.backbone.native import products
from llada_uni.backbone.native.products import Matrices
from llada_uni.errors import UserError

FORMS = ("native", "grouped", "loop", "transposed", "batched")
TOKENS = 32  # of a calibration: an open block
EXPERTS = 16  # of a calibration, at most: their weights do not fit into the caches and take milliseconds to read
BATCHED_ROWS = 8  # an expert with more rows is multiplied alone
HALF_ROWS = 64  # in bfloat16, where a batch may round otherwise, more rows a weight than these go to torch

Product = Callable[[Tensor, Tensor, Segments], Tensor]
Ways = dict[str, Callable[[], Tensor]]


_trained: ContextVar[bool] = ContextVar("trained", default=False)


@contextmanager
def as_trained() -> Iterator[None]:
    """Inside, also without gradients, products are computed as with them: for numbers that must equal those to the bit."""
    token = _trained.set(True)
    try:
        yield
    finally:
        _trained.reset(token)


# --- experts ---


def experts(x: Tensor, share: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x [N, D], share and chosen [N, K], gate and up [E, I, D], down [E, D, I] -> [N, D]; `applies` says when."""
    form = _form_of_experts(chosen.shape[1], gate, up, down)
    if form == "native" and (x.dtype == torch.float32 or chosen.numel() <= HALF_ROWS * gate.shape[0]):
        return _native_experts(x, share, chosen, gate, up, down)
    return _torch_experts(PRODUCTS.get(form, _grouped), x, share, chosen, gate, up, down)


def applies(x: Tensor, *weights: Tensor) -> bool:
    """Whether the forms may be used: on a CPU, in float32 or bfloat16, for plain tensors, and with gradients off."""
    if torch.is_grad_enabled() or _trained.get():
        return False
    same = all(w.dtype == x.dtype for w in weights)
    return same and products.takes(x, *weights) and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _form_of_experts(top_k: int, gate: Tensor, up: Tensor, down: Tensor) -> str:
    asked = given()
    if asked is not None:
        return asked
    return calibration.choose(
        _key("experts", gate, top_k), lambda: ways_of_experts(gate.dtype, top_k, gate.shape[0], gate, up, down)
    )


def ways_of_experts(dtype: torch.dtype, top_k: int, total: int, *matrices: Tensor) -> Ways:
    """The forms on some of a layer's `total` experts, with as many rows each as a block of tokens gives them."""
    gate, up, down = (m[:EXPERTS] for m in matrices)
    count = gate.shape[0]
    draw = torch.Generator().manual_seed(0)
    rows = max(1, TOKENS * top_k * count // total)
    x = torch.randn(rows, gate.shape[-1], generator=draw).to(dtype)
    chosen = torch.randint(count, (rows, 1), generator=draw)
    share = torch.ones(rows, 1)
    case = (x, share, chosen, gate, up, down)
    ways: Ways = {}
    if products.available():
        ways["native"] = lambda: _native_experts(*case)
    for name, product in PRODUCTS.items():
        if name != "grouped" or _has_grouped(gate, down):
            ways[name] = lambda product=product: _torch_experts(product, *case)  # type: ignore[misc]
    return ways


def _native_experts(x: Tensor, share: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return products.experts(x, share, chosen, Matrices.plain(gate), Matrices.plain(up), Matrices.plain(down))


def _torch_experts(
    product: Product, x: Tensor, share: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    segments = sort_by_expert(chosen, gate.shape[0])
    rows = dispatch(x, segments)
    inner = F.silu(product(rows, gate, segments)) * product(rows, up, segments)
    return combine(product(inner, down, segments), share.to(x.dtype), segments)


def _has_grouped(*weights: Tensor) -> bool:
    """torch's kernel wants rows that start at multiples of 16 bytes."""
    return all(width * w.element_size() % 16 == 0 for w in weights for width in w.shape[1:])


def _grouped(rows: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    if not _has_grouped(weight):
        return _loop(rows, weight, segments)
    return F.grouped_mm(rows, weight.transpose(1, 2), offs=segments.ends)


def _loop(rows: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    for expert, start, end in segments.busy or ():
        torch.mm(rows[start:end], weight[expert].t(), out=out[start:end])
    return out


def _transposed(rows: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    for expert, start, end in segments.busy or ():
        out[start:end] = (weight[expert] @ rows[start:end].t()).t()
    return out


def _batched(rows: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    for run in _runs(segments.busy or []):
        (first, begin, _), (last, _, stop) = run[0], run[-1]
        most = max(end - start for _, start, end in run)
        if most > BATCHED_ROWS:
            out[begin:stop] = (weight[first] @ rows[begin:stop].t()).t()
            continue
        places = torch.tensor([(e - first) * most + i for e, start, end in run for i in range(end - start)])
        padded = rows.new_zeros((last + 1 - first) * most, rows.shape[1]).index_copy_(0, places, rows[begin:stop])
        made = torch.bmm(weight[first : last + 1], padded.unflatten(0, (-1, most)).transpose(1, 2))
        out[begin:stop] = made.transpose(1, 2).flatten(0, 1).index_select(0, places)
    return out


def _runs(busy: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """The busy experts (expert, first row, row after the last) cut into neighbours with few rows, others alone."""
    runs: list[list[tuple[int, int, int]]] = []
    for expert, start, end in busy:
        before = runs[-1][-1] if runs else None
        joins = before is not None and before[0] + 1 == expert and max(before[2] - before[1], end - start) <= BATCHED_ROWS
        if joins:
            runs[-1].append((expert, start, end))
        else:
            runs.append([(expert, start, end)])
    return runs


PRODUCTS: dict[str, Product] = {"grouped": _grouped, "loop": _loop, "transposed": _transposed, "batched": _batched}


# --- linear products ---


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` without bias, [..., C] times [O, C] -> [..., O], where `applies` in the form chosen for the shape."""
    if not applies(x, weight) or weight.dim() != 2:
        return F.linear(x, weight)
    form = _form_of_linear(weight)
    rows = x.reshape(-1, x.shape[-1])
    if form == "native" and (x.dtype == torch.float32 or rows.shape[0] <= HALF_ROWS):
        return products.linear(rows, Matrices.plain(weight)).view(*x.shape[:-1], -1)
    return _transposed_linear(x, weight) if form == "transposed" else F.linear(x, weight)


def _form_of_linear(weight: Tensor) -> str:
    asked = given()
    if asked is not None:
        return "transposed" if asked in ("transposed", "batched") else asked
    return calibration.choose(_key("linear", weight), lambda: ways_of_linear(weight))


def ways_of_linear(weight: Tensor) -> Ways:
    """The forms on a block of tokens."""
    x = torch.randn(TOKENS, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    ways = {"loop": lambda: F.linear(x, weight), "transposed": lambda: _transposed_linear(x, weight)}
    return {"native": lambda: products.linear(x, Matrices.plain(weight)), **ways} if products.available() else ways


def _transposed_linear(x: Tensor, weight: Tensor) -> Tensor:
    return (weight @ x.reshape(-1, x.shape[-1]).t()).t().contiguous().view(*x.shape[:-1], -1)


def native_swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)) where `is_native`: [..., D] -> [..., D], gate and up [I, D], down [D, I]."""
    rows = x.reshape(-1, x.shape[-1])
    one = rows.new_ones(rows.shape[0], 1)  # a layer of one expert that every token chooses
    matrices = (gate.unsqueeze(0), up.unsqueeze(0), down.unsqueeze(0))
    return _native_experts(rows, one, torch.zeros_like(one, dtype=torch.int64), *matrices).view_as(x)


# --- all ---


def is_native(x: Tensor, *weights: Tensor) -> bool:
    """Whether the compiled steps compute these: in float32, where `applies`, and no other form was asked for."""
    if x.dtype != torch.float32 or not applies(x, *weights):
        return False
    return given() in (None, "native") and products.available()


def is_native_linear(weight: Tensor) -> bool:
    """Whether `linear` computes products with this weight, where it may, in the compiled form."""
    return _form_of_linear(weight) == "native"


def is_native_experts(top_k: int, gate: Tensor, up: Tensor, down: Tensor) -> bool:
    """The same of `experts`."""
    return _form_of_experts(top_k, gate, up, down) == "native"


def given() -> str | None:
    """The form asked for; None: the fastest. UserError where that is unknown, or native and cannot be compiled."""
    asked = calibration.given(FORMS)
    if asked == "native" and not products.available():
        raise UserError(f"{calibration.VARIABLE} is 'native', which cannot be had here: {products.reason()}")
    return asked


def _key(what: str, weight: Tensor, top_k: int = 0) -> Key:
    """A shape; a head of which some rows are used counts with others of about as many rows."""
    shape = tuple(weight.shape) if what == "experts" else (weight.shape[0].bit_length(), weight.shape[1])
    return Key(what, shape, weight.dtype, torch.get_num_threads(), top_k)
