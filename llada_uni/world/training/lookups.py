"""Heads that begin as look-ups: in attention's last key/value group, for codes that have names (named_codes.py).

Token rows -> states that enter a layer -> what queries, keys and values are to hold, by ridge regression
-> weights of the layer's last group. There are three sorts of look-ups, each reading what the one before wrote:
neighbors, in one early layer: a thing's code looks at the code before it, which says its place; a word at the words around it.
names, in later layers: the word of a thing looks at the code of the same thing, and what is written there is that code's place,
in directions in which the states hardly vary. Nothing reads those at first, so nothing is disturbed; training finds them.
answers, in one late layer: a mask looks at the words of things and reads where they are, as the words for places.
Without such a start "where is the owl?" stayed at chance (docs/log.md). Training moves what these heads read, faster than it
finds what they write; so they may be held as they are (`Held`), or be fitted again to the states that have moved.

P places of all rows together, D width, d features a head, N names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.backbone.model import Layer
from llada_uni.errors import UserError
from llada_uni.options import options
from llada_uni.world.training.named_codes import NamedCode

_PLACES = 9  # values hold one of nine places
_NeighborS = ((1, "both"), (-1, "words"), (2, "words"))  # places back, and who looks there: one head each
_SHARPNESS = 0.15  # standard deviation of fitted weights: queries and keys are normalized, so only their directions count
_QUIET = 60  # directions of least variance among which those that are written in are drawn
FITTED_ROWS = 1100
"""How many token rows are enough."""
_LONGEST = 200


@options
class LookUpOptions:
    """fit: no | new (queries, keys, values and what is written) | again (queries, keys and values of the names alone, for
    states that have moved since). neighbors, names, answers: the layers (answers -1: none). write, answer: size of what names
    and answers write, in deviations of the states. hold: these heads stay as they are while the rest is trained, answers aside.
    """

    fit: Literal["no", "new", "again"] = "no"
    neighbors: int = 0
    names: tuple[int, ...] = (1, 2)
    answers: int = -1
    write: float = 1.0
    answer: float = 0.6
    hold: bool = False

    def __post_init__(self) -> None:
        layers = [self.neighbors, *self.names, self.answers]
        if len(set(layers)) < len(layers):
            raise UserError(f"lookups name a layer twice: {', '.join(map(str, layers))}; each sort needs layers of its own")


def _layer(model: Backbone, number: int) -> Layer:
    return cast(Layer, model.model.layers[number])  # nn.ModuleList does not say what it holds


class _Group:
    """The last key/value group of a layer: views of its rows and columns in the fused weights."""

    def __init__(self, model: Backbone, layer: int) -> None:
        attention = _layer(model, layer).attention
        heads, groups, d = attention.heads, attention.groups, attention.head_dim
        first = heads - heads // groups
        fused, dense = attention.query_key_value.weight, attention.dense.weight
        self.queries = [fused[h * d : (h + 1) * d] for h in range(first, heads)]
        self.keys = fused[(heads + groups - 1) * d : (heads + groups) * d]
        self.values = fused[(heads + 2 * groups - 1) * d :]
        self.written = [dense[:, h * d : (h + 1) * d] for h in range(first, heads)]
        self.scales = [attention.query_layernorm.weight, attention.key_layernorm.weight]

    def write(self, directions: Tensor) -> None:
        """The first head writes its first features along `directions` [D, features]; nothing else of the group is written."""
        for written in self.written:
            written.zero_()
        self.written[0][:, : directions.shape[1]] = directions


class Held:
    """Weights of the look-ups, as they were when this was made, or as `restore` last put them back."""

    def __init__(self, model: Backbone, options: LookUpOptions) -> None:
        self.parts: list[Tensor] = []
        for layer in (options.neighbors, *options.names):
            group = _Group(model, layer)
            heads = len(group.queries) if layer == options.neighbors else 1  # the others of the group are free
            self.parts += [*group.queries[:heads], group.keys, group.values, *group.written[:heads], *group.scales]
        self.kept = [part.detach().clone() for part in self.parts]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts every weight back."""
        for part, kept in zip(self.parts, self.kept, strict=True):
            part.copy_(kept)


@dataclass(frozen=True)
class _Rows:
    """Token rows and what their places are. All tensors [P]; -1 where there is none."""

    rows: Sequence[Tensor]
    ids: Tensor
    code: Tensor  # bool: the code of a thing
    place_code: Tensor  # bool
    word: Tensor  # bool: any word
    mask: Tensor  # bool
    name: Tensor  # number of the thing that a code or word names
    place: Tensor  # number of the place that a code or word names
    own_place: Tensor  # of a thing's code: its place, which the code before it says
    asked: Tensor  # of a thing's word: the place of the one code of its name that is there


def _read(rows: Sequence[Tensor], named: Sequence[NamedCode], offset: int, mask_id: int) -> _Rows:
    ids = torch.cat(list(rows))
    size = max(int(ids.max()), max(code.token for code in named)) + 1
    name, place = torch.full((size,), -1), torch.full((size,), -1)
    for entry in named:
        table = {"thing": name, "place": place}.get(entry.sort)
        if table is not None:
            table[[token for token in (entry.token, *entry.words) if token < size]] = entry.number
    name, place, image = name[ids], place[ids], ids >= offset
    own = torch.full_like(ids, -1)
    own[1:] = torch.where(image[1:] & (name[1:] >= 0) & image[:-1], place[:-1], -1)
    code, word = image & (name >= 0), ~image & (ids != mask_id)
    asked, start = torch.full_like(ids, -1), 0
    for row in rows:
        here = slice(start, start := start + len(row))
        for at in (word[here] & (name[here] >= 0)).nonzero().flatten().tolist():
            (found,) = (code[here] & (name[here] == name[here][at])).nonzero(as_tuple=True)
            if len(found) == 1:
                asked[here][at] = own[here][found[0]]
    return _Rows(rows, ids, code, image & (place >= 0), word, ids == mask_id, name, place, own, asked)


def _states(model: Backbone, layer: int, rows: Sequence[Tensor], normed: bool) -> Tensor:
    """[P, D] float32: what enters a layer, before or behind its first norm."""
    found: list[Tensor] = []
    norm = _layer(model, layer).input_layernorm
    hook = norm.register_forward_hook(lambda _, given, made: found.append((made if normed else given[0])[0].float()))
    block = 32
    try:
        with torch.inference_mode():
            for row in rows:
                model.hidden(row[None], attention_mask=block_causal_square(len(row), block))
    finally:
        hook.remove()
    return torch.cat(found).clone()


def _ridge(x: Tensor, wanted: Tensor, weight: Tensor, strength: float = 0.1) -> Tensor:
    """The map [d, D] from x [P, D] to wanted [P, d] by weighted ridge regression."""
    weighted = x * weight[:, None]
    gram = x.T @ weighted
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram, weighted.T @ wanted).T


def _even(*groups: Tensor) -> Tensor:
    """Weights [P] by which each of the groups (bool [P]), and what is in none, counts as much as the others."""
    rest = ~torch.stack(groups).any(0)
    weight = torch.zeros(len(rest))
    for group in (*groups, rest):
        weight[group] = len(rest) / max(1, int(group.sum()))
    return weight


def _apart(count: int, size: int) -> Tensor:
    """`count` unit vectors of `size` features, as far apart as they go: [count, size]."""
    free = torch.randn(count, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(400):
        unit = F.normalize(free, dim=1)
        loss = ((unit @ unit.T - torch.eye(count)).clamp(min=0) ** 6).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return F.normalize(free.detach(), dim=1)


def _firm(weight: Tensor) -> Tensor:
    return weight * (_SHARPNESS / weight.std())


class _Fitter:
    """Fits look-ups into a model, in place."""

    def __init__(self, model: Backbone, read: _Rows, named: Sequence[NamedCode]) -> None:
        self.model, self.read, self.named = model, read, named
        config = model.config
        self.d, self.half = config.head_dim, int(config.head_dim * config.partial_rotary_factor) // 2
        # Names lie in features that the rotary embedding turns slowly or not at all; the last says "there is nothing here".
        slow = range(self.half // 2, self.half)
        self.features = torch.tensor([*slow, *(self.half + i for i in slow), *range(2 * self.half, self.d - 1)])
        self.nothing = self.d - 1
        self.vectors = _apart(int(read.name.max()) + 1, len(self.features))

    def _nothing(self) -> Tensor:
        return F.one_hot(torch.full((len(self.read.ids),), self.nothing), self.d).float()

    def _with_names(self, at: Tensor) -> Tensor:
        """[P, d]: at the places `at` the vectors of their names, elsewhere "nothing"."""
        wanted = self._nothing()
        wanted[at] = 0.0
        wanted[at.nonzero(), self.features] = self.vectors[self.read.name[at]]
        return wanted

    def neighbors(self, layer: int) -> None:
        read, group, half = self.read, _Group(self.model, layer), self.half
        x = _states(self.model, layer, read.rows, normed=True)
        turning = torch.tensor([0, 1, half, half + 1])  # the two fastest turning pairs of features say how far apart places are
        group.scales[0][turning] = 2.0
        at = read.place_code | read.word
        keys = self._nothing()
        keys[at] = 0.0
        keys[at.nonzero(), turning[:2]] = 1.0
        group.keys.copy_(_firm(_ridge(x, keys, _even(read.place_code, read.word), 1e-3)))
        base = self.model.config.rope_theta
        for weight, (step, who) in zip(group.queries, _NeighborS, strict=False):
            looking = read.word | read.code if who == "both" else read.word
            queries = self._nothing()
            queries[looking] = 0.0
            for pair in (0, 1):
                angle = step * base ** (-pair / half)
                queries[looking, pair], queries[looking, pair + half] = math.cos(angle), -math.sin(angle)
            weight.copy_(_firm(_ridge(x, queries, _even(read.code, read.word), 1e-3)))
        # What is written: the place or the thing that is named there, as its embedding has it.
        values = torch.zeros(len(read.ids), self.d)
        placed, thing = read.place >= 0, read.word & (read.name >= 0)
        values[placed, read.place[placed]] = 1.0
        features = torch.arange(_PLACES, _PLACES + len(self.features))
        values[thing.nonzero(), features] = self.vectors[read.name[thing]]
        group.values.copy_(2 * _ridge(x, values, _even(read.place_code, placed & read.word, thing), 1e-3))
        places, things = self._embeddings(read.place, read.place_code), self._embeddings(read.name, read.code)
        gram = self.vectors.T @ self.vectors + 0.1 * torch.eye(len(self.features))
        back = torch.linalg.solve(gram, self.vectors.T @ things)
        for written in group.written:
            written.zero_()
            written[:, :_PLACES] = places.T / 2
            written[:, features] = back.T / 2

    def _embeddings(self, number: Tensor, of: Tensor) -> Tensor:
        """[numbers, D]: embeddings of the codes `of`, by their numbers, less their mean."""
        table = self.model.model.word_embeddings.weight.float()
        found = torch.zeros(int(number.max()) + 1, table.shape[1])
        found[number[of]] = table[self.read.ids[of]]
        return found - found.mean(0)

    def names(self, layer: int, write: float, again: bool) -> float:
        """Returns how much nearer the keys of the same name are than those of others, in cosines."""
        read, group = self.read, _Group(self.model, layer)
        x = _states(self.model, layer, read.rows, normed=True)
        word = read.word & (read.name >= 0)
        queries, keys = self._with_names(word), self._with_names(read.code)
        queries[:, self.nothing] = 0.0  # no query looks for what is nothing: no drift can make it
        group.queries[0].copy_(_firm(_ridge(x, queries, _even(word))))
        group.keys.copy_(_firm(_ridge(x, keys, _even(read.code))))
        # The other features of the values keep what they had: zero here and in what is written, they could never learn.
        values = torch.zeros(len(read.ids), _PLACES)
        placed = read.code & (read.own_place >= 0)
        values[placed, read.own_place[placed]] = 1.0
        group.values[:_PLACES] = 2 * _ridge(x, values, _even(read.code), 1e-3)
        if not again:
            group.scales[0][self.features] = 1.6
            raw = self._deviations(layer)
            quiet = torch.linalg.eigh(raw.T @ raw)[1][:, :_QUIET]
            generator = torch.Generator().manual_seed(layer)
            directions = torch.linalg.qr(quiet @ torch.randn(quiet.shape[1], _PLACES, generator=generator))[0]
            group.write(write * raw.norm(dim=1).mean() * directions / 2)
        return self._margin(x, group, word)

    def answers(self, layer: int, size: float) -> None:
        read, group = self.read, _Group(self.model, layer)
        x = _states(self.model, layer, read.rows, normed=True)
        word, known = read.word & (read.name >= 0), read.asked >= 0
        here = torch.zeros(self.d)
        here[self.features] = len(self.features) ** -0.5
        queries, keys = torch.zeros(len(x), self.d), self._nothing()
        queries[read.mask], keys[word] = here, here
        group.scales[0][self.features] = 1.6
        group.queries[0].copy_(_firm(_ridge(x, queries, _even(read.mask))))
        group.keys.copy_(_firm(_ridge(x, keys, _even(word))))
        values = torch.zeros(len(x), _PLACES)
        values[known, read.asked[known]] = 1.0
        group.values[:_PLACES] = 2 * _ridge(x, values, _even(known, word & ~known))
        group.write(size * self._deviations(layer).norm(dim=1).mean() * self._place_words().T)

    def _deviations(self, layer: int) -> Tensor:
        """[P, D]: the states that enter a layer, less their mean."""
        raw = _states(self.model, layer, self.read.rows, normed=False)
        return raw - raw.mean(0)

    def _place_words(self) -> Tensor:
        """[places, D]: unit vectors along which the words of the places become likelier."""
        head = self.model.lm_head.weight.float()
        places = sorted((code for code in self.named if code.sort == "place"), key=lambda code: code.number)
        found = torch.stack([head[list(code.words)].mean(0) for code in places])
        return F.normalize(found - found.mean(0), dim=1)

    def _margin(self, x: Tensor, group: _Group, word: Tensor) -> float:
        words, codes = word.nonzero().flatten()[:400], self.read.code.nonzero().flatten()[:3000]
        cosines = F.normalize(x[words] @ group.queries[0].T, dim=1) @ F.normalize(x[codes] @ group.keys.T, dim=1).T
        same = self.read.name[words][:, None] == self.read.name[codes][None]
        return float(cosines[same].mean() - cosines[~same].mean())


@torch.no_grad()
def fit_lookups(
    model: Backbone, rows: Sequence[Tensor], named: Sequence[NamedCode], mask_id: int, options: LookUpOptions
) -> dict[int, float]:
    """Fits the look-ups of options.fit, layer by layer, since each changes what the next one reads.

    rows: int64 token rows [T]; half of them should hold masks, as rows do that are being written. Returns for each layer of
    names how much nearer words lie to codes of their own name than to others, in cosines. UserError where the network has
    too few layers, or rows without names.
    """
    layers = (options.neighbors, *options.names, options.answers)
    if max(layers) >= len(model.model.layers):
        raise UserError(f"lookups name layer {max(layers)}; the network has layers 0 to {len(model.model.layers) - 1}")
    rows = [row for row in rows if len(row) <= _LONGEST][:FITTED_ROWS]
    read = _read(rows, named, model.config.image_token_offset, mask_id)
    if not (bool(read.code.any()) and bool((read.word & (read.name >= 0)).any())):
        raise UserError("lookups cannot be fitted: the data has no names of things beside their codes")
    with torch.enable_grad():
        fitter = _Fitter(model, read, named)
    if options.fit == "new":
        fitter.neighbors(options.neighbors)
    margins = {layer: fitter.names(layer, options.write, options.fit == "again") for layer in sorted(options.names)}
    if options.answers >= 0 and options.fit == "new":
        fitter.answers(options.answers, options.answer)
    return margins
