"""History: kept over a reload, brought back, deleted; results handed from mode to mode."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.serving.web.actions import give_picture, hold_seed, last_body, open_settings, opened, panel, run, show
from tests.serving.web.conftest import open_studio
from tests.serving.web.fake_server import Seen


def test_an_entry_survives_a_reload_and_comes_back(page: Page, seen: Seen) -> None:
    open_settings(panel(page, "draw"))
    panel(page, "draw").get_by_label("Temperature", exact=True).fill("0.5")
    panel(page, "draw").get_by_label("Pictures").fill("2")
    hold_seed(page, "draw", 11)
    run(page, "draw", "a cat on green")
    page.reload()
    page.locator("#main:not([inert])").wait_for()
    expect(page.locator(".past img")).to_have_count(1)
    show(page, "story")
    page.get_by_label("Bring back draw: a cat on green").click()
    form = panel(page, "draw").locator("form")
    expect(form.locator("textarea")).to_have_value("a cat on green")
    expect(form.get_by_label("Seed", exact=True)).to_have_value("11")
    expect(form.get_by_label("Temperature", exact=True)).to_have_value("0.5")
    assert panel(page, "draw").locator(".facts").all_text_contents() == ["seed 11 · 192 × 192", "seed 12 · 192 × 192"]
    panel(page, "draw").get_by_label("Same again").first.click()
    expect(panel(page, "draw").locator(".stage")).to_have_attribute("aria-busy", "false")
    body = last_body(seen, "/v1/images/generations")
    assert (body["seed"], body["temperature"], body["n"]) == (11, 0.5, 2)


def test_a_masked_edit_comes_back_with_its_mask(page: Page, seen: Seen) -> None:
    show(page, "edit")
    give_picture(page, "edit")
    page.get_by_text("Paint a part").click()
    panel(page, "edit").locator("canvas").click()
    run(page, "edit", "a cat")
    first = last_body(seen, "/v1/images/edits")
    page.reload()
    page.locator("#main:not([inert])").wait_for()
    page.get_by_label("Bring back edit: a cat").click()
    expect(panel(page, "edit").locator(".frame img")).to_be_visible()
    run(page, "edit", "a cat")
    again = last_body(seen, "/v1/images/edits")
    assert again["images"] == first["images"] and again["seed"] == first["seed"]
    assert opened(again["mask"]).tobytes() == opened(first["mask"]).tobytes()


def test_words_come_back(page: Page, seen: Seen) -> None:
    show(page, "chat")
    give_picture(page, "chat")
    run(page, "chat", "what is there?")
    show(page, "story")
    run(page, "story", "a bear")
    page.reload()
    page.locator("#main:not([inert])").wait_for()
    page.get_by_label("Bring back chat: what is there?").click()
    assert panel(page, "chat").locator(".bubble").all_text_contents() == ["what is there?", "a cat at the top left"]
    run(page, "chat", "and now?")
    assert len(last_body(seen, "/v1/chat/completions")["messages"]) == 3
    page.get_by_label("Bring back story: a bear").click()
    expect(panel(page, "story").locator(".scene img")).to_have_count(2)


def test_deleting(page: Page) -> None:
    for words in ("a cat", "a dog", "a fox"):
        run(page, "draw", words)
    page.get_by_label("Delete draw: a dog").click()
    expect(page.locator(".past")).to_have_count(2)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete all").click()
    expect(page.locator("#history-empty")).to_be_visible()
    open_studio(page)
    expect(page.locator(".past")).to_have_count(0)


def test_a_result_goes_to_another_mode(page: Page, seen: Seen) -> None:
    hold_seed(page, "draw", 2)
    run(page, "draw", "a cat").get_by_label("Edit this picture").click()
    expect(page.locator("#panel-edit")).to_be_visible()
    run(page, "edit", "make it blue").get_by_label("Ask about this picture").click()
    run(page, "ask", "what is it?")
    sent = last_body(seen, "/v1/chat/completions")["messages"][0]["content"][0]["image_url"]["url"]
    assert opened(sent).size == (192, 192)
