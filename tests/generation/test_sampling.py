"""The greedy choice in one compiled call equals softmax and max."""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import calibration
from llada_uni.backbone.native import products
from llada_uni.generation.sampling import pick

pytestmark = pytest.mark.skipif(not products.available(), reason="no compiler")


def both(logits, forbidden=None):
    with torch.inference_mode():
        with calibration.using("native"):
            ours = pick(logits.clone(), None, forbidden=forbidden)
        with calibration.using("loop"):
            return ours, pick(logits.clone(), None, forbidden=forbidden)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("size", [2, 5, 16, 17, 1000, 16384])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_it_equals_softmax_and_max(rows, size, scale):
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(size)) * scale
    for forbidden in (None, 0, size - 1, int(logits[0].argmax())):
        ours, truth = both(logits, forbidden)
        counts = truth.confidence > 0  # where all that is left has no share in float32, ours still takes the largest
        assert torch.equal(ours.choice[counts], truth.choice[counts])
        torch.testing.assert_close(ours.confidence, truth.confidence, rtol=3e-6, atol=1e-9)
        assert ours.likeliest is ours.confidence


def test_of_equal_ones_the_first_and_what_is_left_out_counts_for_nothing():
    logits = torch.tensor([[1.0, 7.0, 7.0, 2.0] * 9, [float("-inf")] * 35 + [3.0], [0.0] * 36])
    ours, truth = both(logits)
    assert ours.choice.tolist() == truth.choice.tolist() == [1, 35, 0]
    torch.testing.assert_close(ours.confidence, truth.confidence)
    ours, truth = both(logits, 1)
    assert ours.choice.tolist() == truth.choice.tolist() == [2, 35, 0]


def test_a_row_does_not_see_the_others_nor_the_threads():
    logits = torch.randn(40, 999, generator=torch.Generator().manual_seed(3))
    threads = torch.get_num_threads()
    with torch.inference_mode(), calibration.using("native"):
        whole = pick(logits, None, forbidden=4)
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                for row in range(0, 40, 7):
                    alone = pick(logits[row : row + 1], None, forbidden=4)
                    assert alone.choice == whole.choice[row] and alone.confidence == whole.confidence[row]
        finally:
            torch.set_num_threads(threads)


def test_logits_that_are_no_numbers_give_no_confidence():
    logits = torch.zeros(2, 20)
    logits[1, 7] = float("nan")
    ours, truth = both(logits)
    assert ours.confidence.isnan().tolist() == truth.confidence.isnan().tolist() == [False, True]
