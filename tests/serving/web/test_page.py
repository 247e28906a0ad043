"""The page itself: nothing from elsewhere, no markup from words, keys, names for all fields, narrow and dark screens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.serving.web.actions import give_picture, panel, run, show
from tests.serving.web.conftest import open_studio
from tests.serving.web.fake_server import WEB, Seen

CLIPPED = """() => [...document.querySelectorAll('body *')]
    .filter((node) => node.checkVisibility() && !node.closest('.unseen, .skip'))
    .filter((node) => {
        const { left, right, width } = node.getBoundingClientRect();
        const cut = getComputedStyle(node).overflowX === 'hidden' && node.scrollWidth > node.clientWidth + 1;
        return width && (left < -1 || right > innerWidth + 1 || cut);
    })
    .map((node) => node.outerHTML.slice(0, 200))"""
MODES = ("draw", "ask", "edit", "chat", "story")
HOSTILE = '<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script>'


def test_nothing_is_loaded_from_elsewhere(context: BrowserContext, fake: tuple[str, Seen], seen: Seen) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_studio(page)
    run(page, "draw", "a cat")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((fake[0], "data:", "blob:"))] == []


def test_words_are_never_markup(page: Page) -> None:
    run(page, "draw", HOSTILE)
    expect(page.locator(".past .caption")).to_have_text(f"draw: {HOSTILE}")
    show(page, "ask")
    give_picture(page, "ask")
    expect(run(page, "ask", f"say {HOSTILE}").locator(".said").first).to_have_text(HOSTILE)
    show(page, "chat")
    expect(run(page, "chat", f"say {HOSTILE}").locator(".bubble").last).to_have_text(HOSTILE)
    page.reload()
    page.locator("#main:not([inert])").wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0


def files() -> list[Path]:
    return [path for path in sorted(WEB.rglob("*")) if path.suffix in (".js", ".css", ".html")]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_files_keep_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:|https?://(?!www\.w3\.org)"
    )
    assert re.findall(forbidden, text) == []
    if path.suffix == ".html":
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text) == []


def test_shortcuts(page: Page) -> None:
    prompt = panel(page, "draw").locator("textarea")
    page.keyboard.press("/")
    expect(prompt).to_be_focused()
    page.keyboard.type("3 cats")  # figures and letters are words while one types
    expect(prompt).to_have_value("3 cats")
    page.keyboard.press("Alt+Digit3")
    expect(panel(page, "edit")).to_be_visible()
    page.locator("#tab-edit").focus()
    for figure, mode in enumerate(MODES, start=1):
        page.keyboard.press(str(figure))
        expect(panel(page, mode)).to_be_visible()
    page.keyboard.press("g")
    expect(panel(page, "story").get_by_label("Seed", exact=True)).not_to_have_value("")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_contain_text("small model of a small world")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.locator("#tab-story").press("ArrowRight")
    expect(page.locator("#tab-draw")).to_be_focused()
    expect(panel(page, "draw")).to_be_visible()


def test_every_field_and_button_has_a_name(page: Page) -> None:
    run(page, "draw", "a cat")
    for mode in MODES:
        show(page, mode)
        for fold in panel(page, mode).locator("form summary").all():
            if fold.is_visible() and not fold.evaluate("(node) => node.parentElement.open"):
                fold.click()
        unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea, canvas')]
            .filter((node) => node.checkVisibility())
            .filter((node) => !node.getAttribute('aria-label') && !node.textContent.trim() && !node.labels?.length)
            .map((node) => node.outerHTML)""")
        assert unnamed == []


@pytest.mark.parametrize("width", [360, 800])
def test_narrow_screens_need_no_sideways_scrolling(browser: Browser, fake: tuple[str, Seen], seen: Seen, width: int) -> None:
    context = browser.new_context(base_url=fake[0], viewport={"width": width, "height": 740})
    page = context.new_page()
    open_studio(page)
    page.evaluate("document.getElementById('status').textContent = 'a-name-of-a-model-that-is-long is ready'")
    for mode in MODES:
        show(page, mode)
        if mode in ("ask", "edit"):
            give_picture(page, mode)
        run(page, mode, "a-word-that-is-much-too-long-for-any-line-of-a-phone" * 2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
    expect(page.locator("#tab-story")).to_be_in_viewport()
    context.close()


def test_dark_where_the_person_prefers_it(browser: Browser, fake: tuple[str, Seen], seen: Seen) -> None:
    lightness = []
    for scheme in ("light", "dark"):
        page = browser.new_page(base_url=fake[0], color_scheme=scheme)
        open_studio(page)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness.append(sum(map(int, re.findall(r"\d+", color))))
        page.close()
    assert lightness[0] > 700 > 100 > lightness[1]


def test_dropped_and_pasted_pictures(page: Page) -> None:
    show(page, "ask")
    send = """([kind, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], 'a.png', { type: 'image/png' }));
        const names = { drop: 'dataTransfer', paste: 'clipboardData' };
        const event = new (kind === 'drop' ? DragEvent : ClipboardEvent)(kind, { [names[kind]]: transfer, bubbles: true });
        document.querySelector('#panel-ask form').dispatchEvent(event);
    }"""
    from tests.serving.web.fake_server import picture

    for number, kind in enumerate(("drop", "paste"), start=1):
        page.evaluate(send, [kind, picture(number)])
        expect(panel(page, "ask").locator(".slot")).to_have_count(number)
