"""A group of settings as text, as the command line has it: `--sprint keep_ratio=0.5,warmup=1`."""

from __future__ import annotations

import pytest

from llada_uni.errors import UserError
from llada_uni.generation.params import Sampling, Sprint


def test_both_forms_of_sprint_can_be_written():
    for text, sprint in (
        ("r=0.5, alpha=0.3", Sprint(r=0.5, alpha=0.3)),
        ("keep_ratio=0.5,warmup=1,text_keep_ratio=1", Sprint(keep_ratio=0.5, warmup=1, text_keep_ratio=1.0)),
    ):
        assert Sampling().overlaid({"sprint": text}).sprint == sprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("share=0.5", "unknown setting 'share'"),
        ("keep_ratio=half", "keep_ratio must be a number from 0 to 1, not 'half'"),
        ("keep_ratio=0.5,warmup=1.5", "warmup must be a whole number from 1 to 4096, not '1.5'"),
        ("warmup=1", "sprint: warmup belongs to the published form: give keep_ratio too"),
        ("keep_ratio=0.5,r=1", "sprint: r belongs to the report's form: leave keep_ratio out"),
    ],
)
def test_what_does_not_fit_is_said(text, message):
    with pytest.raises(UserError, match=message):
        Sampling().overlaid({"sprint": text})
