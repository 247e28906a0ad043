"""What goes wrong, in words: refusals, a server that is away or still loading, keys, broken streams and files."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.serving.web.actions import panel, run, show
from tests.serving.web.conftest import open_studio
from tests.serving.web.fake_server import Seen


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("busy", r"^As many requests wait as may wait\. Try again in 7 s \(at .+\)\."),
        ("wrong", r"^Height is 33; allowed: multiples of 32\."),
        ("break", r"^The server failed on this request\."),
    ],
)
def test_the_servers_words_are_shown(page: Page, prompt: str, words: str) -> None:
    stage = run(page, "draw", prompt)
    expect(stage.get_by_role("alert").locator("p")).to_have_text(re.compile(words))
    stage.get_by_role("button", name="Try again").click()
    expect(stage.get_by_role("alert").locator("p")).to_have_text(re.compile(words))
    run(page, "draw", "a cat")
    expect(stage.get_by_role("alert")).to_be_empty()


def test_nothing_to_do_is_a_sentence(page: Page, seen: Seen) -> None:
    expect(run(page, "draw", "  ").get_by_role("alert")).to_contain_text("There are no words yet")
    assert seen.bodies == []


def test_a_key_is_asked_for_and_kept_in_the_tab(page: Page, seen: Seen) -> None:
    seen.key = "right"
    panel(page, "draw").locator("textarea").fill("a cat")
    page.keyboard.press("Control+Enter")
    dialog = page.locator("#key-dialog")
    expect(dialog).to_contain_text("an API key is needed")
    page.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key")).to_have_value("")  # asked once more
    page.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    expect(panel(page, "draw").locator(".frame img[alt='a cat']")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('llada-studio-key')") == "right"
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    run(page, "draw", "a dog")
    expect(dialog).to_be_hidden()


def test_declining_to_give_a_key(page: Page, seen: Seen) -> None:
    seen.key = "right"
    panel(page, "draw").locator("textarea").fill("a cat")
    page.keyboard.press("Control+Enter")
    page.locator("#key-dialog").get_by_text("Cancel").click()
    expect(page.get_by_role("alert").first).to_contain_text("An API key is needed.")


def test_a_key_is_needed_from_the_start(context: BrowserContext, seen: Seen) -> None:
    seen.key = "right"
    page = context.new_page()
    page.goto("/")
    page.locator("#key-dialog").get_by_text("Cancel").click()
    expect(page.locator("#status")).to_have_text("An API key is needed. Reload the page to try again.")
    page.reload()
    page.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    page.locator("#main:not([inert])").wait_for()


def test_a_server_that_is_away(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    expect(run(page, "draw", "a cat").get_by_role("alert")).to_contain_text("The server cannot be reached.")
    context.set_offline(False)
    panel(page, "draw").get_by_role("button", name="Try again").click()
    expect(panel(page, "draw").locator(".frame img[alt='a cat']")).to_be_visible()


def test_a_model_that_loads(context: BrowserContext, seen: Seen) -> None:
    seen.ready = False
    page = context.new_page()
    page.goto("/")
    expect(page.locator("#status")).to_have_text("the model is still being read")
    assert page.locator("#main").get_attribute("inert") is not None
    seen.ready = True
    page.locator("#main:not([inert])").wait_for()
    expect(page.locator("#status")).to_have_text("world is ready")


@pytest.mark.parametrize(
    ("mime", "words"),
    [("text/plain", "notes.txt is not a picture the server reads"), ("image/png", "notes.txt could not be read as a picture")],
)
def test_files_that_are_no_pictures(page: Page, mime: str, words: str) -> None:
    show(page, "ask")
    file = {"name": "notes.txt", "mimeType": mime, "buffer": b"hello"}
    panel(page, "ask").locator("input[type=file]").set_input_files(file)
    expect(panel(page, "ask").get_by_role("alert")).to_contain_text(words)


def test_a_stream_that_ends_too_early(page: Page, context: BrowserContext) -> None:
    context.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=": ping\n\n"))
    open_studio(page, "chat")
    expect(run(page, "chat", "hello").get_by_role("alert")).to_contain_text("The answer broke off before its end.")
