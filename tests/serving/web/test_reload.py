"""A reload loses nothing: what is written and chosen, what is shown, and what the server is at."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.serving.web.actions import give_picture, hold_seed, last_body, open_settings, opened, panel, run, show
from tests.serving.web.fake_server import Seen, picture


def reload(page: Page) -> None:
    page.reload()
    page.locator("#main:not([inert])").wait_for()


def begin(page: Page, mode: str, words: str, seen: Seen) -> None:
    """Runs, and waits until the server is at it."""
    box = panel(page, mode).locator("textarea")
    box.fill(words)
    box.press("Control+Enter")
    for _ in range(200):
        if seen.held:
            return
        page.wait_for_timeout(50)
    raise AssertionError("the server was not asked")


def finish(page: Page, mode: str, seen: Seen) -> None:
    seen.go_on.set()
    expect(panel(page, mode).locator(".stage")).to_have_attribute("aria-busy", "false")
    expect(panel(page, mode).get_by_role("alert")).to_be_empty()


def test_a_drawing_goes_on_and_is_picked_up(page: Page, seen: Seen) -> None:
    hold_seed(page, "draw", 7)
    begin(page, "draw", "wait for a cat", seen)
    expect(panel(page, "draw").locator(".code.settled")).to_have_count(8)
    panel(page, "draw").locator("textarea").fill("the next one")
    reload(page)
    stage = panel(page, "draw").locator(".stage")
    expect(stage).to_have_attribute("aria-busy", "true")
    expect(stage.locator(".code.settled")).to_have_count(8)
    expect(panel(page, "draw").locator("textarea")).to_have_value("the next one")
    finish(page, "draw", seen)
    expect(stage.get_by_role("img", name="wait for a cat")).to_be_visible()
    expect(stage.locator(".facts")).to_contain_text("seed 7")
    expect(page.locator(".past")).to_have_count(1)
    assert len(seen.bodies) == 1 and seen.gone == 0  # asked for once
    reload(page)
    expect(stage).to_have_attribute("aria-busy", "false")
    expect(stage.get_by_role("img", name="wait for a cat")).to_be_visible()  # what was shown is shown


def test_a_run_that_ended_meanwhile_is_there(page: Page, seen: Seen) -> None:
    show(page, "story")
    begin(page, "story", "wait", seen)
    page.goto("about:blank")
    seen.go_on.set()
    page.wait_for_timeout(300)
    page.go_back()
    page.locator("#main:not([inert])").wait_for()
    expect(panel(page, "story").locator(".scene img")).to_have_count(2)
    expect(page.locator(".past")).to_have_count(1)


@pytest.mark.parametrize("mode", ["ask", "chat"])
def test_an_answer_is_picked_up(page: Page, seen: Seen, mode: str) -> None:
    show(page, mode)
    if mode == "chat":
        run(page, mode, "hello")
    give_picture(page, mode)
    begin(page, mode, "wait, what is there?", seen)
    reload(page)
    finish(page, mode, seen)
    if mode == "ask":
        expect(panel(page, mode).locator(".said")).to_have_text("a cat at the top left")
        expect(panel(page, mode).locator(".about img")).to_be_visible()
        return
    expect(panel(page, mode).locator(".bubble")).to_have_text(
        ["hello", "a cat at the top left", "wait, what is there?", "a cat at the top left"]
    )
    expect(panel(page, mode).locator("textarea")).to_have_value("")
    expect(panel(page, mode).locator(".slot")).to_have_count(0)
    expect(page.locator(".past")).to_have_count(1)
    run(page, mode, "and now?")
    assert len(last_body(seen, "/v1/chat/completions")["messages"]) == 5


def test_an_edit_is_picked_up_with_its_mask(page: Page, seen: Seen) -> None:
    show(page, "edit")
    give_picture(page, "edit")
    page.get_by_text("Paint a part").click()
    panel(page, "edit").locator("canvas").click()
    begin(page, "edit", "wait", seen)
    first = last_body(seen, "/v1/images/edits")
    reload(page)
    finish(page, "edit", seen)
    panel(page, "edit").get_by_label("Same again").click()
    expect(panel(page, "edit").locator(".stage")).to_have_attribute("aria-busy", "false")
    again = last_body(seen, "/v1/images/edits")
    assert len(seen.bodies) == 2
    assert (again["images"], again["seed"]) == (first["images"], first["seed"])
    assert opened(again["mask"]).tobytes() == opened(first["mask"]).tobytes()


def test_a_run_that_is_picked_up_can_be_cancelled(page: Page, seen: Seen) -> None:
    begin(page, "draw", "wait", seen)
    reload(page)
    expect(panel(page, "draw").locator(".stage")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(panel(page, "draw").locator(".stage")).to_have_attribute("aria-busy", "false")
    for _ in range(100):
        if seen.gone:
            break
        page.wait_for_timeout(50)
    assert (seen.held, seen.gone) == (0, 1)
    reload(page)
    expect(panel(page, "draw").locator(".stage")).to_have_attribute("aria-busy", "false")


def test_a_run_that_the_server_has_lost(page: Page, seen: Seen) -> None:
    with page.expect_request("**/v1/images/generations") as asked:
        begin(page, "draw", "wait", seen)
    page.goto("about:blank")
    page.request.delete(f"/v1/llada/streams/{asked.value.headers['x-llada-stream']}")
    page.go_back()
    page.locator("#main:not([inert])").wait_for()
    alert = panel(page, "draw").get_by_role("alert")
    expect(alert).to_contain_text("The server no longer has what was being made here.")
    seen.go_on.set()
    alert.get_by_role("button", name="Try again").click()
    expect(panel(page, "draw").get_by_role("img", name="wait")).to_be_visible()


def test_a_lost_connection_is_taken_up(page: Page, seen: Seen) -> None:
    """The network goes in mid-stream: trying again reads on, and does not ask anew."""
    alert = run(page, "draw", "cut").get_by_role("alert")
    expect(alert).to_contain_text("The answer broke off before its end.")
    alert.get_by_role("button", name="Try again").click()
    expect(panel(page, "draw").get_by_role("img", name="cut")).to_be_visible()
    assert len(seen.bodies) == 1


def test_the_form_survives(page: Page, seen: Seen) -> None:
    form = panel(page, "draw").locator("form")
    form.locator("textarea").fill("half a sentence")
    form.get_by_label("Pictures").fill("3")
    form.locator("select[name=size]").select_option("384x384")
    hold_seed(page, "draw", 5)
    open_settings(form)
    form.get_by_label("Temperature", exact=True).fill("0.5")
    page.get_by_label("Think first").check()
    show(page, "edit")
    give_picture(page, "edit", 1)
    give_picture(page, "edit", 2)
    page.get_by_text("Paint a part").click()
    panel(page, "edit").locator("canvas").click()
    page.wait_for_timeout(200)  # the pictures are written
    reload(page)
    expect(panel(page, "edit").locator(".slot")).to_have_count(2)
    expect(panel(page, "edit").get_by_label("Paint a part")).to_be_checked()
    run(page, "edit", "a cat")
    body = last_body(seen, "/v1/images/edits")
    assert body["images"] == [f"data:image/png;base64,{picture(1)}"]
    assert opened(body["mask"]).getbbox() is not None
    show(page, "draw")
    run(page, "draw", "a cat")
    body = last_body(seen, "/v1/images/generations")
    assert (body["n"], body["size"], body["seed"], body["temperature"], body["thinking"]) == (3, "384x384", 5, 0.5, True)


def test_another_tab_has_its_own(page: Page, seen: Seen) -> None:
    panel(page, "draw").locator("textarea").fill("half a sentence")
    other = page.context.new_page()
    other.goto("/#draw")
    other.locator("#main:not([inert])").wait_for()
    expect(panel(other, "draw").locator("textarea")).to_have_value("")


def test_start_afresh_stays_afresh(page: Page, seen: Seen) -> None:
    show(page, "chat")
    run(page, "chat", "hello")
    reload(page)
    expect(panel(page, "chat").locator(".bubble")).to_have_count(2)
    page.get_by_text("Start afresh").click()
    reload(page)
    expect(panel(page, "chat").locator(".bubble")).to_have_count(0)
