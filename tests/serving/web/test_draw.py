"""Draw: what is sent, what is seen while it comes about, cancelling, seeds, thinking, downloads."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.serving.web.actions import hold_seed, last_body, open_settings, panel, run
from tests.serving.web.fake_server import Seen

PATH = "/v1/images/generations"


def test_a_prompt_becomes_a_picture(page: Page, seen: Seen) -> None:
    hold_seed(page, "draw", 7)
    stage = run(page, "draw", "  a cat on green ")
    expect(stage.get_by_role("img", name="a cat on green")).to_be_visible()
    expect(stage.locator(".facts")).to_contain_text("seed 7 · 192 × 192")
    body = last_body(seen, PATH)
    assert body == {
        "prompt": "a cat on green", "model": "world", "n": 1, "size": "192x192", "seed": 7, "thinking": False,
        "stream": True, "partial_images": 3, "progress": True,
    }  # fmt: skip


def test_the_denoising_is_seen_and_can_be_cancelled(page: Page, seen: Seen) -> None:
    stage = panel(page, "draw").locator(".stage")
    panel(page, "draw").locator("textarea").fill("wait")
    page.keyboard.press("Control+Enter")
    expect(stage.locator(".code.settled")).to_have_count(8)
    expect(stage.locator(".code.draft")).to_have_count(4)
    expect(stage.locator(".code.draft").first).to_have_text("108")
    sureness = "cell => Number(getComputedStyle(cell).getPropertyValue('--sureness'))"
    assert stage.locator(".code.settled").first.evaluate(sureness) > stage.locator(".code.draft").first.evaluate(sureness)
    expect(stage.locator("img.forming")).to_be_visible()
    expect(stage.locator(".progress")).to_contain_text("Composing: 8 of 16 places")
    page.keyboard.press("Escape")
    expect(stage).to_have_attribute("aria-busy", "false")
    expect(page.locator("#announcer")).to_have_text("Cancelled")
    expect(stage.locator(".empty")).to_be_visible()  # as before the run
    page.wait_for_function("() => fetch('ready')")  # the server has had its turn
    for _ in range(50):
        if seen.gone:
            break
        page.wait_for_timeout(100)
    assert (seen.held, seen.gone) == (0, 1)


def test_several_pictures_have_seeds_one_after_the_other(page: Page, seen: Seen) -> None:
    expect(page.locator("[data-part=alike]")).to_be_hidden()
    panel(page, "draw").get_by_label("Pictures").fill("3")
    expect(page.locator("[data-part=alike]")).to_be_visible()
    hold_seed(page, "draw", 5)
    facts = run(page, "draw", "a cat").locator(".facts")
    expect(facts).to_have_count(3)
    assert [text.split(" · ")[0] for text in facts.all_text_contents()] == ["seed 5", "seed 6", "seed 7"]


def test_the_seed_is_new_each_time_or_held(page: Page, seen: Seen) -> None:
    for _ in range(2):
        run(page, "draw", "a cat")
    seeds = [body["seed"] for _, body in seen.bodies]
    assert seeds[0] != seeds[1]
    panel(page, "draw").get_by_label("Same again").click()
    expect(panel(page, "draw").locator(".stage")).to_have_attribute("aria-busy", "false")
    assert [body["seed"] for _, body in seen.bodies] == [*seeds, seeds[1]]
    expect(panel(page, "draw").get_by_label("Hold", exact=True)).to_be_checked()


def test_thinking_stands_apart(page: Page, seen: Seen) -> None:
    page.get_by_label("Think first").check()
    stage = run(page, "draw", "two plus one flat lemons")
    fold = stage.locator("details.thinking")
    expect(fold.locator("p")).to_be_hidden()
    fold.locator("summary").click()
    expect(fold.locator("p")).to_have_text("two plus one is three")
    assert last_body(seen, PATH)["thinking"] is True


def test_changed_settings_are_sent_and_checked(page: Page, seen: Seen) -> None:
    form = panel(page, "draw").locator("form")
    open_settings(form)
    assert form.get_by_label("Threshold", exact=True).get_attribute("placeholder") == "0.98"
    form.get_by_label("Image steps", exact=True).fill("4")
    form.get_by_label("Pruning: share kept", exact=True).fill("0.5")
    form.get_by_label("Decoder", exact=True).select_option("base")
    expect(form.locator(".badge")).to_have_text("3 changed")
    run(page, "draw", "a cat")
    body = last_body(seen, PATH)
    assert (body["image_steps"], body["sprint"]["r"], body["decoder"]) == (4, 0.5, "base")
    form.get_by_label("Image steps", exact=True).fill("0")
    alert = run(page, "draw", "a cat").get_by_role("alert")
    expect(alert).to_have_text("Image steps must be a whole number from 1 to 4096.")
    form.get_by_text("Back to the defaults").click()
    run(page, "draw", "a cat")
    assert "image_steps" not in last_body(seen, PATH)


def test_downloads_have_readable_names(page: Page, tmp_path: Path) -> None:
    hold_seed(page, "draw", 2)
    stage = run(page, "draw", "A cat & a dog, on <green>!")
    with page.expect_download() as got:
        stage.get_by_label("Download the picture").click()
    assert got.value.suggested_filename == "a-cat-a-dog-on-green-seed2.png"
    got.value.save_as(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (192, 192)
    with page.expect_download() as got:
        stage.get_by_label("Download how it was made (JSON)").click()
    got.value.save_as(tmp_path / "a.json")
    record = json.loads((tmp_path / "a.json").read_text())
    assert (record["prompt"], record["seed"], record["model"]) == ("A cat & a dog, on <green>!", 2, "world")


def test_codes_and_pixels_of_a_finished_picture(page: Page) -> None:
    stage = run(page, "draw", "a cat")
    expect(stage.locator(".codes")).to_be_hidden()
    stage.get_by_label("Show how it was composed").click()
    expect(stage.locator(".codes")).to_be_visible()
    expect(stage.locator(".code.settled")).to_have_count(16)
    stage.get_by_label("Pixel by pixel").click()
    assert stage.locator(".frame img").evaluate("node => getComputedStyle(node).imageRendering") == "pixelated"
