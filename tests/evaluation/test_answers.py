from __future__ import annotations

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.answers import drawn_in, frames_of, picture_of, text_of, thinking_of
from llada_uni.world.evaluation.references import Result

PICTURE = Image.new("RGB", (8, 8))


def test_results_may_be_plain_or_objects() -> None:
    assert text_of("cat") == text_of(Result(text="cat")) == "cat"
    assert picture_of(PICTURE) is picture_of(Result(PICTURE)) is PICTURE
    assert thinking_of(Result(thinking="so")) == "so"
    assert thinking_of(PICTURE) == ""
    with pytest.raises(UserError, match="no picture"):
        picture_of(Result(text="sorry"))
    assert drawn_in(Result(text="sorry")) is None and drawn_in(Result(PICTURE)) is PICTURE


def test_frames_pair_words_with_the_picture_after_them() -> None:
    parts = [
        "one",
        Result(PICTURE),
        Result(text="two"),
        Result(text="three"),
        PICTURE,
        PICTURE,
        "end",
        object(),
    ]
    assert [(t, p is not None) for t, p in frames_of(parts)] == [
        ("one", True),
        ("two three", True),
        ("", True),
        ("end", False),
    ]
