"""Noising: which places are masked, what each view shows, and that a view is what generation sees."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.masking import Masker, MaskingOptions, stretches, views_of
from llada_uni.data.packing import pack
from llada_uni.errors import UserError
from llada_uni.generation import engine, oracle
from llada_uni.generation.settings import Settings
from tests.backbone.helpers import small_config

MASK, EOS, BLOCK = 39, 38, 8
CODES = range(24, 36)


def story(rng: random.Random, pictures: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A record of words and pictures in turn: ids below 24 are words, those of CODES are codes."""
    ids, kinds = [rng.randrange(24) for _ in range(rng.randrange(1, 12))], []
    kinds = [CONTEXT] * len(ids)
    for _ in range(pictures):
        for kind, count in ((TEXT, rng.randrange(1, 9)), (CODE, rng.randrange(1, 13)), (CONTEXT, 1)):
            kinds += [kind] * count
            ids += [rng.choice(CODES) if kind == CODE else rng.randrange(24) for _ in range(count)]
    last = rng.randrange(1, 6)
    ids += [rng.randrange(24) for _ in range(last)] + [EOS]
    return np.array(ids, np.int32), np.array(kinds + [TEXT] * (last + 1), np.int8)


def masker(longest: int = 400, **options) -> Masker:
    return Masker(MaskingOptions(block=BLOCK, **options), MASK, EOS, longest)


def test_stretches_are_runs_of_one_kind():
    kinds = np.array([TEXT, CONTEXT, CODE, CODE, TEXT, TEXT], np.int8)
    assert stretches(kinds, CODE) == [(2, 4)]
    assert stretches(kinds, TEXT) == [(0, 1), (4, 6)]
    assert stretches(kinds, 7) == []


def test_views_of_a_block_with_words_a_picture_and_words():
    # places:          0        1     2     3     4     5        6     7        8
    kinds = np.array([CONTEXT, TEXT, TEXT, CODE, CODE, CONTEXT, TEXT, TEXT, TEXT], np.int8)
    ids = np.arange(10, 19)
    (code,) = views_of(ids, kinds, CODE, BLOCK, 0, EOS, 0.05)
    assert code.ids.tolist() == [10, 11, 12, 13, 14] and code.weights.tolist() == [0, 0, 0, 1, 1]
    first, second, third = views_of(ids, kinds, TEXT, BLOCK, 0, EOS, 0.05)
    assert first.ids.tolist() == [10, 11, 12] + [EOS] * 5  # neither the picture nor the later words are there yet
    assert first.weights == pytest.approx([0, 1, 1] + [0.05] * 5)
    assert second.ids.tolist() == list(range(10, 18)) and second.weights.tolist() == [0] * 6 + [1, 1]
    assert third.start == 8 and third.ids.tolist() == [18] + [EOS] * 7


def test_only_words_or_only_codes_are_masked():
    rng, kinds_seen = random.Random(0), set()
    for _ in range(100):
        ids, kinds = story(rng)
        for row in masker(complementary=True).rows(ids, kinds, "story", rng):
            learned = np.flatnonzero(row.targets >= 0)
            inside = row.positions[learned] < len(ids)
            found = set(kinds[row.positions[learned][inside]].tolist()) - {CONTEXT}
            words = bool(np.isin(row.targets[learned], CODES).sum() == 0)
            assert found <= ({TEXT} | ({CODE} if row.weights[learned].min() < 1 else set()) if words else {CODE})
            assert (row.ids[learned] == MASK).all() and (np.delete(row.ids, learned) != MASK).all()
            kinds_seen.add(words)
    assert kinds_seen == {True, False}
    for share, words in ((0.0, False), (1.0, True)):
        row = masker(text_share=share).rows(*story(rng), "story", rng)[0]
        assert bool(np.isin(row.targets[row.targets >= 0], CODES).any()) != words


@pytest.mark.parametrize("rate_per", ["block", "sample"])
@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_opposite_masks_learn_every_place_once(rate_per, moved):
    rng = random.Random(1)
    for _ in range(60):
        ids, kinds = story(rng)
        for share, kind in ((1.0, TEXT), (0.0, CODE)):
            made = masker(text_share=share, complementary=True, rate_per=rate_per, moved=moved, everything=0.2)
            rows = made.rows(ids, kinds, "story", rng)
            learned = [row.positions[(row.targets >= 0) & (row.weights == 1)] for row in rows]
            assert np.sort(np.concatenate(learned)).tolist() == np.flatnonzero(kinds == kind).tolist()


def test_rates_are_drawn_from_their_range():
    ids, kinds = np.arange(3000) % 24, np.array([CODE] * 3000, np.int8)
    rng = random.Random(2)
    row = masker(longest=6000, rates=(0.3, 0.5), rate_per="sample").rows(ids, kinds, "t2i", rng)[0]
    rate = float(row.rates[row.views > 0][0])
    assert 0.3 <= rate <= 0.5 and (row.targets >= 0).sum() == pytest.approx(3000 * rate, rel=0.15)
    row = masker(longest=6000, rates=(0.3, 0.5)).rows(ids, kinds, "t2i", rng)[0]
    assert len(set(row.rates[row.views > 0].tolist())) > 300  # one a block
    assert (row.rates[row.views > 0] >= 0.3).all() and (row.rates[row.views > 0] <= 0.5).all()
    assert row.learnable == 3000


def test_onward_masks_words_from_one_of_them_on():
    rng = random.Random(7)
    ids, kinds = story(rng)
    words, firsts = set(np.flatnonzero(kinds == TEXT).tolist()), set()
    for _ in range(300):
        for row in masker(text_share=1.0, onward=1.0).rows(ids, kinds, "story", rng):
            for view in {*row.views.tolist()} - {0}:
                here = row.views == view
                learned = row.targets[here] >= 0
                first = int(row.positions[here][learned][0])
                assert learned[learned.argmax() :].all()  # nothing known behind it, filling included
                able = learned.sum() / row.rates[here][0]
                assert learned.sum() <= able <= BLOCK and able == pytest.approx(round(able))
                firsts.add(first)
    assert firsts == words  # each is at some time the first that is masked
    pictures = [masker(text_share=0.0, onward=share).rows(ids, kinds, "story", random.Random(8)) for share in (0.0, 1.0)]
    assert all((a.targets == b.targets).all() for a, b in zip(*pictures, strict=True))


def test_closing_masks_the_last_word_and_the_end():
    rng, counts = random.Random(9), set()
    for _ in range(60):
        (row,) = masker(text_share=1.0, closing=1.0, objective="one_block").rows(*story(rng, 0), "understand", rng)
        learned = row.targets >= 0
        assert learned[learned.argmax() :].all()
        words = row.targets[learned & (row.weights == 1)]
        able = learned.sum() / row.rates[-1]
        assert len(words) <= 2 and able == pytest.approx(round(able)) and (row.targets[learned][2:] == EOS).all()
        counts.add(len(words))
    assert counts == {1, 2}  # one where the end stands alone in a block


def test_opposite_masks_share_the_clean_places():
    rng = random.Random(6)
    for objective in ("one_block", "two_stream"):
        for _ in range(20):
            (row,) = masker(objective=objective, complementary=True, rates=(0.4, 0.6)).rows(*story(rng), "story", rng)
            clean = row.views == 0
            assert (row.positions[clean] == np.arange(clean.sum())).all() and (row.copies[clean] == 0).all()
            for copy in (0, 1):
                mine = (row.views > 0) & (row.copies == copy)
                assert objective == "two_stream" or len({*row.views[mine]}) <= 1
                assert not set(row.views[mine]) & set(row.views[~mine])


def test_one_block_rows_are_a_clean_beginning_and_one_view():
    rng = random.Random(3)
    for _ in range(50):
        ids, kinds = story(rng)
        (row,) = masker(objective="one_block").rows(ids, kinds, "story", rng)
        views = set(row.views.tolist()) - {0}
        assert len(views) == 1 and (row.positions == np.arange(len(row))).all()
        assert len({*row.blocks[row.views > 0]}) == 1 and (row.blocks[row.views == 0] < row.blocks[-1]).all()


def test_long_samples_become_several_rows_and_lose_nothing():
    rng = random.Random(4)
    ids, kinds = story(rng, pictures=5)
    whole = masker(longest=1000, everything=1.0, text_share=0.0).rows(ids, kinds, "story", rng)
    parts = masker(longest=len(ids) + BLOCK, everything=1.0, text_share=0.0).rows(ids, kinds, "story", rng)
    assert len(whole) == 1 and len(parts) > 1 and all(len(row) <= len(ids) + BLOCK for row in parts)
    learned = np.concatenate([row.positions[row.targets >= 0] for row in parts])
    assert sorted(learned) == sorted(whole[0].positions[whole[0].targets >= 0])
    with pytest.raises(ValueError, match="does not fit"):
        masker(longest=20).rows(ids, kinds, "story", rng)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "blocks"}, "two_stream, one_block"),
        ({"rates": (0.5, 0.2)}, "inside 0 to 1"),
        ({"rate_per": "row"}, "block, sample"),
        ({"moved": 2.0}, "0 to 1"),
        ({"onward": -0.1}, "0 to 1"),
        ({"onward": 0.6, "closing": 0.6}, "at most 1"),
        ({"block": 0}, "at least 1"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        MaskingOptions(**options)


def _first_drafts(run, model, ids, view, masked, first, allowed):
    """What generation drafts in its first step behind ids[:first], when all before the view is final and so is what is not
    `masked` in it."""
    answer = np.concatenate([ids[: view.start], view.ids])
    answer[view.start :][masked] = MASK
    canvas = answer[first:].tolist()
    settings = Settings(mask_id=MASK, block_length=BLOCK, steps=1, gen_length=len(canvas), allowed=allowed)
    events = []
    run(model, ids[:first].tolist(), settings, canvas=canvas, on_step=events.append)
    shown = canvas[events[0].block_start :]
    return [token for token, before in zip(events[0].tokens, shown, strict=True) if before == MASK]


@pytest.mark.parametrize("run", [oracle.generate, engine.generate], ids=["oracle", "engine"])
@pytest.mark.parametrize("kind", [TEXT, CODE])
def test_a_view_is_what_generation_sees(run, kind):
    """The best tokens at the masked places of a two-stream row are the drafts of generation's first step, view by view."""
    model, rng = Backbone(small_config(initializer_range=0.5)).eval(), random.Random(5)
    allowed = list(CODES) if kind == CODE else [i for i in range(40) if i != MASK]
    compared = 0
    for _ in range(12):
        ids, kinds = story(rng)
        row = masker(text_share=float(kind == TEXT), rates=(0.5, 0.9)).rows(ids, kinds, "story", rng)[0]
        batch = pack([row], len(row) + 5, pad_id=0)
        with torch.no_grad():
            logits = model(batch.ids, batch.positions, batch.mask())[0]
        best = torch.tensor(allowed)[logits[:, allowed].argmax(-1)].numpy()
        for number, view in enumerate(views_of(ids, kinds, kind, BLOCK, 0, EOS, 0.05)):
            here = np.flatnonzero(row.views == 2 * number + 1)
            if not len(here):
                continue  # nothing masked in it
            learned = view.start + int(np.argmax(view.weights == 1))
            first = max(start for start, _ in stretches(kinds, kind) if start <= learned)
            masked = row.targets[here] >= 0
            assert _first_drafts(run, model, ids, view, masked, first, allowed) == best[here][masked].tolist()
            compared += masked.sum()
    assert compared > 60
