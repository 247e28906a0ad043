from __future__ import annotations

import json

import pytest

from llada_uni.errors import UserError
from llada_uni.evaluation import SUITES, format_table, run_suites
from llada_uni.evaluation.references import Oracle, Result, Wrong
from llada_uni.evaluation.suites import draw_samples

LIMIT = 12


@pytest.mark.parametrize("split", ["heldout", "seen"])
def test_a_model_that_knows_every_answer_gets_everything_right(split: str) -> None:
    report = run_suites(Oracle(LIMIT, 3, split), SUITES, LIMIT, seed=3, split=split)
    for name, suite in report["suites"].items():
        assert suite["overall"] == 1.0, name
        assert suite["errors"] == 0
        assert all(c["score"] == 1.0 for c in suite["classes"].values()), name
        assert all(v == 1.0 for v in suite["metrics"].values()), (name, suite["metrics"])
        assert suite["n"] == LIMIT
        assert suite["interval"][0] > 0.7
        assert suite["interval"][1] > 1.0 - 1e-9


def test_a_model_that_is_always_wrong_gets_nearly_nothing() -> None:
    suites = run_suites(Wrong(), SUITES, LIMIT)["suites"]
    for name in ("understand", "edit", "inpaint", "stories", "dialogue", "decoder", "t2i", "think"):
        assert suites[name]["overall"] < 0.1, name
    assert suites["t2i"]["metrics"]["exact"] == 0.0
    assert suites["edit"]["metrics"]["asked"] == 0.0  # nothing was done ...
    assert suites["edit"]["metrics"]["kept"] == 1.0  # ... so everything was kept
    assert suites["inpaint"]["metrics"]["kept"] == 1.0
    assert suites["stories"]["metrics"]["agreement"] == 0.0
    assert suites["think"]["metrics"]["thought"] == 0.0


def test_report_holds_settings_and_is_written(tmp_path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = run_suites(
        Oracle(6, 0, "heldout"),
        ["t2i", "stories", "decoder"],
        limit=6,
        json_path=tmp_path / "sub" / "report.json",
        html_dir=tmp_path / "page",
        progress=lambda *step: seen.append(step),
        settings={"generate": {"steps": 4}},
    )
    assert json.loads((tmp_path / "sub" / "report.json").read_text()) == json.loads(json.dumps(report))
    used = report["settings"]
    assert (used["seed"], used["split"], used["limit"]) == (0, "heldout", 6)
    assert used["calls"]["generate"] == {"steps": 4, "decoder": "turbo"}
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<article>") == 6 + 6 + 12
    assert "data:image/png;base64," in page
    assert ("t2i", 6, 6) in seen
    assert ("decoder", 12, 12) in seen
    table = format_table(report)
    assert "turbo" in table and "base" in table and "seed 0" in table


def test_the_page_escapes_what_a_model_says(tmp_path) -> None:
    class Rude(Wrong):
        def understand(self, images, question):
            return Result(text="<script>alert(1)</script>")

    run_suites(Rude(), ["understand"], limit=3, html_dir=tmp_path)
    assert "<script>" not in (tmp_path / "index.html").read_text()


def test_samples_do_not_depend_on_the_model_and_differ_by_seed() -> None:
    one, two = draw_samples("edit", 20, 0, "heldout"), draw_samples("edit", 20, 0, "heldout")
    assert one == two
    assert one != draw_samples("edit", 20, 1, "heldout")
    # A larger limit continues the same list.
    assert draw_samples("t2i", 30, 0, "seen")[:20] == draw_samples("t2i", 20, 0, "seen")


def test_robust_uses_wordings_that_are_never_trained() -> None:
    tasks = {s.task for s in draw_samples("robust", 10, 0, "heldout")}
    assert tasks == {"t2i", "understand"}


def test_an_answer_that_cannot_be_used_is_wrong_and_counted() -> None:
    class Moody(Oracle):
        calls = 0

        def generate_image(self, prompt, height, width, seed, thinking, **settings):
            self.calls += 1
            if self.calls % 2 == 0:
                raise UserError("the header was malformed")
            return super().generate_image(prompt, height, width, seed, thinking, **settings)

    suite = run_suites(Moody(10, 0, "heldout"), ["t2i"], limit=10)["suites"]["t2i"]
    assert suite["errors"] == 5
    assert suite["overall"] == 0.5


def test_a_model_that_cannot_do_a_task_is_an_error_and_not_a_score() -> None:
    class Broken(Wrong):
        def edit_image(self, images, instruction, seed, **settings):
            raise UserError("no decoder in this directory")

    for limit in (1, 2, 10):
        with pytest.raises(UserError, match="no decoder"):
            run_suites(Broken(), ["edit"], limit=limit)
    report = run_suites(Broken(), ["edit", "understand"], limit=4)
    assert report["suites"]["edit"].keys() == {"meaning", "failed"}
    assert report["suites"]["understand"]["n"] == 4
    assert "FAILED: no decoder in this directory" in format_table(report)


def test_what_is_done_is_written_when_the_evaluation_is_stopped(tmp_path) -> None:
    class Stopped(Wrong):
        def edit_image(self, images, instruction, seed, **settings):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suites(Stopped(), ["understand", "edit"], limit=3, json_path=tmp_path / "r.json")
    assert set(json.loads((tmp_path / "r.json").read_text())["suites"]) == {"understand"}


def test_the_defaults_of_a_model_directory_are_in_the_report() -> None:
    class Defaults:
        def to_json(self):
            return {"generate": {"cfg_scale": 3.0}}

    class Parts:
        defaults = Defaults()

    model = Wrong()
    model.parts = Parts()
    settings = run_suites(model, ["understand"], limit=1)["settings"]
    assert settings["model_defaults"] == {"generate": {"cfg_scale": 3.0}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suites": ["poems"]}, "known: t2i"),
        ({"suites": []}, "known: t2i"),
        ({"split": "train"}, "heldout, seen"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_suites(Wrong(), **arguments)
