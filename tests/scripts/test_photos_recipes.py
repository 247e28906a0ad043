"""Recipes for photographs: the templates parse, and what evaluation asks in is not among what training asks in."""

from __future__ import annotations

from pathlib import Path

from llada_uni.data.importers.wordings import Wordings

FOLDER = Path(__file__).parents[2] / "recipes" / "photos"


def test_held_out_wordings_are_held_out():
    trained, held, seen_by_tokenizer = (
        {wording.ask for wording in Wordings.from_file(FOLDER / f"{name}.yaml").by_task["t2i"]}
        for name in ("templates", "heldout_templates", "tokenizer_templates")
    )
    assert len(held) == 4 and not held & (trained | seen_by_tokenizer)
    # Their words are known all the same: what is held out is how they are put together.
    known = {word for text in trained for word in text.replace(",", "").split()}
    assert {word for text in held for word in text.split()} - known <= {"with", "show", "see"}
