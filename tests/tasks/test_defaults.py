"""Rules, confidences and SPRINT as settings of a model directory and as keywords of a call."""

from __future__ import annotations

import json
import shutil

import pytest

from llada_uni.errors import UserError
from llada_uni.generation.params import Sprint
from llada_uni.model import UniModel
from llada_uni.tasks.defaults import Defaults, adjusted
from tests.tiny_model import make_tiny_model


def test_rules_and_sprint_come_from_the_file_and_reach_the_sampling():
    data = {
        "generate": {"codes": {"rule": "adaptive", "threshold": 0.93, "sprint": {"r_text": 1.0, "r_img": 0.8}}},
        "understand": {"text": {"rule": "entropy", "confidence": "entropy"}},
    }
    defaults = Defaults.from_json(data)
    codes = defaults.generate.codes
    assert (codes.steps, codes.rule, codes.threshold) == (8, "adaptive", 0.93)
    assert codes.sprint == Sprint(r_text=1.0, r_img=0.8)
    words = defaults.understand.text
    assert (words.steps, words.rule, words.confidence, words.sprint) == (32, "entropy", "entropy", None)
    assert Defaults.from_json(defaults.to_json()) == defaults


def test_a_call_may_change_them():
    codes = adjusted(Defaults().generate.codes, rule="factor", confidence="margin", sprint={"r": 0.3})
    assert (codes.rule, codes.confidence, codes.sprint) == ("factor", "margin", Sprint(r=0.3))
    assert adjusted(codes, sprint=Sprint(r=1.0)).sprint == Sprint(r=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "best"}, "rule must be one of threshold, left, adaptive, entropy, factor, sprint, t2t, t2m, not 'best'"),
        ({"confidence": 1}, "confidence must be one of probability, margin, entropy, neg_entropy, random, not 1"),
        ({"sprint": 0.5}, "sprint must be a group of settings or null, not 0.5"),
        (
            {"sprint": {"share": 0.5}},
            "sprint: unknown setting 'share'; known: r, r_text, r_img, alpha, keep_ratio, warmup, "
            "image_keep_ratio, text_keep_ratio",
        ),
        ({"sprint": {"r": "half"}}, "sprint: r must be a number from 0 to 1, not 'half'"),
        ({"sprint": {"r": 2}}, "sprint: r must be a number from 0 to 1, not 2"),
    ],
)
def test_impossible_ones_are_named(given, message):
    with pytest.raises(UserError) as error:
        adjusted(Defaults().generate.codes, **given)
    assert str(error.value) == message


# --- of a directory ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"generate": {"stepz": 1}}, "stepz"),
        ({"generate": {"codes": {"steps": 0}}}, "steps"),
        ({"edit": 3}, "edit"),
        ({"block_length": -1}, "block_length"),
        ({"decode": {"decoder": "fast"}}, "decoder"),
    ],
)
def test_bad_generation_config(folder, tmp_path, content, words):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        UniModel.from_pretrained(tmp_path / "model", device="cpu").generate_image("a cat")


def test_without_a_generation_config_the_values_of_the_published_code_hold(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").unlink()
    defaults = UniModel.from_pretrained(tmp_path / "model", device="cpu").parts.defaults
    assert (defaults.block_length, defaults.generate.height, defaults.generate.cfg_scale) == (32, 1024, 4.0)
    assert (defaults.generate.rescale, defaults.edit.rescale, defaults.decode.decoder) == (0.7, 0.7, "base")
    assert (defaults.edit.text_scale, defaults.edit.image_scale, defaults.generate.codes.steps) == (4.0, 0.0, 16)
    assert (defaults.interleave.text_scale, defaults.interleave.image_scale) == (7.5, 1.5)
    assert (defaults.interleave.rescale, defaults.interleave.max_frames) == (0.7, 10)
    assert (defaults.generate.text.max_tokens, defaults.understand.text.steps) == (4096, 32)
