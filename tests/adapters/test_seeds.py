"""How generators become seeds."""

from __future__ import annotations

import pytest
import torch

from llada_uni.adapters.seeds import seeds_of
from llada_uni.errors import UserError
from llada_uni.tasks.checks import check_seed


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_generator_is_drawn_from_in_order_and_goes_on():
    one = made(3)
    first = seeds_of(one, 2)
    assert first == seeds_of(made(3), 2) and first + seeds_of(one, 1) == seeds_of(made(3), 3)
    assert len({*first, *seeds_of(made(4), 2)}) == 4
    assert [check_seed(seed) for seed in first] == first, "they are seeds that the tasks take"


def test_a_list_gives_each_its_own():
    assert seeds_of([made(1), made(2), made(1)], 3) == [*seeds_of(made(1), 1), *seeds_of(made(2), 1), *seeds_of(made(1), 1)]
    with pytest.raises(UserError, match="2 generators were given for 3"):
        seeds_of([made(1), made(2)], 3)


def test_without_one_torch_s_own_state_counts():
    torch.manual_seed(5)
    first = seeds_of(None, 2)
    torch.manual_seed(5)
    assert seeds_of(None, 2) == first


def test_the_mapping_does_not_change():
    """A seed that somebody wrote down stays what it was."""
    assert seeds_of(made(0), 1) == [900450186894289456]
