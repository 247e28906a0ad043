"""The moving-average codebook: hand-computed moves, dead codes placed again, micro-batches spread over processes."""

from __future__ import annotations

import math

import torch

from llada_uni.training.loop.ranks import Processes
from llada_uni.training.tokenizer.codebook import Codebook, CodebookOptions


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_a_code_moves_to_the_mean_of_what_chose_it():
    book = torch.tensor([unit(0), unit(90), unit(180)])
    codebook = Codebook(3, 2, CodebookOptions(decay=0.75, share_decay=0.5, reseed_every=10), Processes())
    vectors = torch.tensor([unit(10), unit(30), unit(80)])
    codebook.observe(1, 0, vectors, torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.8, 0.9]))
    codebook.update(book)
    # Code 0: its members' mean points to 20 degrees; three quarters of the old direction, one quarter of the new one.
    x, y = 0.75 + 0.25 * math.cos(math.radians(20)), 0.25 * math.sin(math.radians(20))
    length = math.hypot(x, y)
    assert torch.allclose(book[0], torch.tensor([x / length, y / length]), atol=1e-6)
    assert torch.allclose(book[2], torch.tensor(unit(180)))  # nobody chose it: it stays
    assert torch.allclose(codebook.share, torch.tensor([1 / 6 + 1 / 3, 1 / 6 + 1 / 6, 1 / 6]), atol=1e-6)


def test_micro_batches_of_a_step_count_together():
    vectors = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    codes, fit = torch.arange(12) % 3, torch.linspace(0, 1, 12)
    books = []
    for parts in ([slice(0, 12)], [slice(0, 6), slice(6, 12)]):
        book = torch.eye(4)[:3].clone()
        codebook = Codebook(3, 4, CodebookOptions(), Processes())
        for number, part in enumerate(parts):
            codebook.observe(7, number, vectors[part], codes[part], fit[part])
        codebook.update(book)
        books.append(book)
    assert torch.allclose(*books, atol=1e-6)


def test_dead_codes_take_the_place_of_badly_served_vectors():
    book = torch.tensor([unit(0), unit(180), unit(270)])
    codebook = Codebook(3, 2, CodebookOptions(share_decay=0.0, dead_below=0.1, reseed_every=1), Processes())
    angles = [1.0, 2.0, 3.0, 80.0]
    vectors = torch.tensor([unit(angle) for angle in angles])
    fit = torch.tensor([math.cos(math.radians(angle)) for angle in angles])
    codebook.observe(0, 0, vectors, torch.zeros(4, dtype=torch.int64), fit)
    codebook.update(book)
    assert codebook.share[1:].tolist() == [1 / 3] * 2 or torch.allclose(codebook.share[1:], torch.tensor([1 / 3] * 2))
    placed = {tuple(row) for row in book[1:].tolist()}
    assert placed <= {tuple(row) for row in vectors.tolist()} and len(placed) == 2
    kept = torch.tensor([unit(0), unit(180), unit(270)])
    codebook.observe(1, 0, vectors, torch.zeros(4, dtype=torch.int64), fit)
    codebook.update(kept, reseed=False)
    assert torch.allclose(kept[1:], torch.tensor([unit(180), unit(270)]), atol=1e-6)


def test_codes_are_placed_apart_from_one_another():
    codebook = Codebook(3, 2, CodebookOptions(), Processes())
    vectors = torch.tensor([unit(a + d) for a in (0, 120, 240) for d in (-1, 0, 1)])
    codebook.observe(0, 0, vectors)
    book = torch.zeros(3, 2)
    codebook.place(book)
    assert ((book @ book.T) - 2 * torch.eye(3)).max() < -0.4  # one in each of the three clusters


def test_what_a_skipped_step_left_is_forgotten():
    book = torch.tensor([unit(0), unit(180)])
    codebook = Codebook(2, 2, CodebookOptions(), Processes())
    codebook.observe(0, 0, torch.full((2, 2), float("nan")), torch.tensor([0, 1]), torch.zeros(2))
    codebook.observe(1, 0, torch.tensor([unit(0), unit(180)]), torch.tensor([0, 1]), torch.ones(2))
    codebook.update(book)
    assert torch.allclose(book, torch.tensor([unit(0), unit(180)]), atol=1e-6)


def test_metrics_of_an_even_and_of_a_collapsed_codebook():
    codebook = Codebook(4, 2, CodebookOptions(), Processes())
    assert codebook.metrics() == {"usage": 1.0, "perplexity": 4.0} or abs(codebook.metrics()["perplexity"] - 4) < 1e-4
    codebook.share.copy_(torch.tensor([1.0, 0, 0, 0]))
    assert codebook.metrics()["usage"] == 0.25 and abs(codebook.metrics()["perplexity"] - 1) < 1e-5
