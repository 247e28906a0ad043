from __future__ import annotations

import itertools
import json
import random

import pytest

from llada_uni.errors import UserError
from llada_uni.evaluation.report import format_table
from llada_uni.evaluation.run import run_suites
from llada_uni.world.evaluation.references import Oracle, Result, Wrong
from llada_uni.world.evaluation.suites import SUITES, cases, draw_samples
from llada_uni.world.tasks import KINDS

LIMIT = 10
PARTS = {
    "wise": ["without", "with"],
    "robust": ["plain", "reworded"],
    "intergen": ["stories", "reasoning"],
    "decoder": ["base50", "turbo8", "turbo4"],
}


@pytest.mark.parametrize("split", ["heldout", "seen"])
def test_a_model_that_knows_every_answer_gets_everything_right(split: str) -> None:
    report = run_suites(Oracle(LIMIT, 3, split), SUITES, LIMIT, seed=3, split=split)
    assert list(report["suites"]) == list(SUITES)
    for name, suite in report["suites"].items():
        for part in [suite, *(suite[part] for part in PARTS.get(name, []))]:
            assert part["overall"] == 1.0, name
            assert part["errors"] == 0
            assert all(c["score"] == 1.0 for c in part["classes"].values()), name
            assert all(v == 1.0 for k, v in part["metrics"].items() if k != "distance"), (name, part["metrics"])
            assert part["interval"][0] > 0.5
            assert part["interval"][1] > 1.0 - 1e-9
        assert suite["n"] == LIMIT
    assert report["suites"]["decoder"]["metrics"]["distance"] == 0.0


def test_a_model_that_is_always_wrong_gets_nearly_nothing() -> None:
    suites = run_suites(Wrong(), SUITES, LIMIT)["suites"]
    for name, suite in suites.items():
        assert suite["overall"] < 0.15, name
    assert suites["edit"]["metrics"]["asked"] < 0.15  # nothing was done ...
    assert suites["edit"]["metrics"]["kept"] > 0.6  # ... so nearly everything was kept
    assert suites["wise"]["with"]["metrics"]["thought"] == 0.0
    assert suites["decoder"]["metrics"]["distance"] > 0.1


def test_suites_ask_every_kind_that_issue_4_names() -> None:
    keys = {suite: {case.key for case in cases(suite, 60, 0, "heldout")} for suite in SUITES}
    assert keys["geneval"] == {"single", "two objects", "counting", "colors", "position", "attribute binding"}
    assert keys["understand"] == set(KINDS["understand"])
    assert keys["edit"] == {*KINDS["edit"], "inpainting"}
    assert keys["intergen"] == {*KINDS["story"], *KINDS["reasoning"]}
    for suite, parts in PARTS.items():
        if suite != "decoder":
            assert {case.part for case in cases(suite, 4, 0, "heldout")} == set(parts)


def test_the_overall_score_is_the_mean_of_the_classes() -> None:
    class Half(Oracle):
        def generate_image(self, prompt, **how):
            result = super().generate_image(prompt, **how)
            return result if how["seed"] % 6 else Wrong().generate_image(prompt, **how)  # the first class

    suite = run_suites(Half(12, 0, "heldout"), ["geneval"], limit=12)["suites"]["geneval"]
    assert suite["classes"]["single"]["score"] == 0.0
    assert suite["overall"] == pytest.approx(5 / 6)


def test_report_holds_settings_and_is_written(tmp_path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = run_suites(
        Oracle(4, 0, "heldout"),
        ["geneval", "wise", "decoder"],
        limit=4,
        json_path=tmp_path / "sub" / "report.json",
        html_dir=tmp_path / "page",
        progress=lambda *step: seen.append(step),
        settings={"generate": {"image_steps": 4}},
    )
    assert json.loads((tmp_path / "sub" / "report.json").read_text()) == json.loads(json.dumps(report))
    used = report["settings"]
    assert (used["seed"], used["split"], used["limit"]) == (0, "heldout", 4)
    assert used["calls"]["generate"] == {"image_steps": 4, "decoder": "turbo"}
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<article>") == 4 + 8 + 12
    assert "data:image/png;base64," in page
    assert ("geneval", 4, 4) in seen and ("wise", 8, 8) in seen and ("decoder", 12, 12) in seen
    table = format_table(report)
    assert "turbo4" in table and "without" in table and "seed 0" in table


def test_the_page_escapes_what_a_model_says(tmp_path) -> None:
    class Rude(Wrong):
        def understand(self, images, question, seed):
            return Result(text="<script>alert(1)</script>")

    run_suites(Rude(), ["understand"], limit=3, html_dir=tmp_path)
    assert "<script>" not in (tmp_path / "index.html").read_text()


def test_samples_do_not_depend_on_the_model_and_differ_by_seed() -> None:
    one, two = draw_samples("edit", 20, 0, "heldout"), draw_samples("edit", 20, 0, "heldout")
    assert one == two
    assert one != draw_samples("edit", 20, 1, "heldout")
    # A larger limit continues the same list.
    assert draw_samples("geneval", 30, 0, "seen")[:20] == draw_samples("geneval", 20, 0, "seen")


def test_robust_asks_the_same_in_other_words() -> None:
    pairs = list(cases("robust", 24, 0, "heldout"))
    plain, reworded = pairs[::2], pairs[1::2]
    assert {case.sample.task for case in plain} == {"t2i", "understand"}
    differ = 0
    for one, other in zip(plain, reworded, strict=True):
        assert one.sample.expect == other.sample.expect and one.seed == other.seed
        differ += one.sample.turns != other.sample.turns
    assert differ >= 22


def test_a_dialogue_goes_on_with_the_model_s_own_answers() -> None:
    histories = []

    class Listener(Wrong):
        def chat(self, messages, seed, **settings):
            histories.append([m["content"] for m in messages])
            return Result(text=f"reply {random.Random(seed).random()}")

    report = run_suites(Listener(), ["dialogue"], limit=3)
    assert report["suites"]["dialogue"]["overall"] == 0.0
    for before, after in itertools.pairwise(histories):
        if len(after) > 1:
            assert after[: len(before)] == before and after[len(before)][0].startswith("reply")


def test_an_answer_that_cannot_be_used_is_wrong_and_counted() -> None:
    class Moody(Oracle):
        calls = 0

        def generate_image(self, prompt, height, width, seed, thinking, **settings):
            self.calls += 1
            if self.calls % 2 == 0:
                raise UserError("the header was malformed")
            return super().generate_image(prompt, height, width, seed, thinking, **settings)

    suite = run_suites(Moody(10, 0, "heldout"), ["text"], limit=10)["suites"]["text"]
    assert suite["errors"] == 5
    assert suite["overall"] == 0.5


def test_a_model_that_cannot_do_a_task_is_an_error_and_not_a_score() -> None:
    class Broken(Wrong):
        def generate_image(self, *arguments, **settings):
            raise UserError("no decoder in this directory")

    for limit in (1, 2, 10):
        with pytest.raises(UserError, match="no decoder"):
            run_suites(Broken(), ["text"], limit=limit)
    report = run_suites(Broken(), ["text", "understand"], limit=4)
    assert report["suites"]["text"].keys() == {"meaning", "failed"}
    assert report["suites"]["understand"]["n"] == 4
    assert "FAILED: no decoder" in format_table(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suites": ["poems"]}, "known: photos, geneval"),
        ({"suites": []}, "known: photos, geneval"),
        ({"split": "train"}, "known: heldout, seen"),
        ({"limit": 0}, "at least 1 sample"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_suites(Wrong(), **arguments)
