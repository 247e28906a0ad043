"""The measuring command: kinds of questions, and a run measured from its directory."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks.tokenizer_answers import kind_of, main
from llada_uni.errors import UserError
from llada_uni.training.recipes.recipe import Recipe, train
from llada_uni.world.questions import UNDERSTAND_KINDS
from llada_uni.world.tasks import sample_task


def test_every_question_of_the_world_has_its_kind():
    rng = random.Random(0)
    for kind in UNDERSTAND_KINDS:
        for wordings in ("train", "heldout"):
            for _ in range(60):  # every template, as good as surely
                question = sample_task(rng, "understand", wordings=wordings, kind=kind).turns[0].parts[-1]
                assert kind_of(question) == kind, question
    assert kind_of("who painted this?") == "other"


def test_a_run_is_measured(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    recipe = {
        "stage": "quantizer",
        "out": str(tmp_path / "run"),
        "loop": {"steps": 2, "tensorboard": False},
        "options": {
            "pictures": {"count": 4},
            "text": {"vocab_size": 480, "pictures": 100},
            "vision": {**sizes, "num_heads": 2, "depth": 1},
            "book": {"num_embeddings": 16, "embed_dim": 8},
            "probe_lm": {"model": {"model_type": "llama", **sizes, "num_hidden_layers": 1, "num_attention_heads": 2}},
            "features_first": 1,
        },
    }
    train(Recipe.from_plain(recipe))
    assert main([recipe["out"], "--pictures", "20", "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["case"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert {"train: all", "heldout: all", "codes used", "perplexity of the codes"} <= set(rows)
    assert 0 <= rows["heldout: all"]["ours"] <= 1 and rows["heldout: all"]["more"]["n"] > 20
    assert 1 <= rows["codes used"]["ours"] <= 16 and rows["codes used"]["theirs"] == 16


def test_other_runs_are_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("stage: vae\nout: x\n")
    with pytest.raises(UserError, match="stage vae"):
        main([str(tmp_path)])
