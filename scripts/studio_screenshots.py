"""Screenshots of the studio after a real action in each mode, for docs/studio.md.

    python scripts/studio_screenshots.py [--out docs/studio] [--model DIR] [--chromium PATH]

`llada-uni serve` on a free port, headless Chromium -> prompts typed as a person would -> small PNG
files. Needs the package `playwright` and a Chromium on this machine.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from server_process import ServerProcess

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
ON_PHONE = "-360"  # ends the names of pictures of a narrow screen
PATIENCE = 120_000  # milliseconds that one action may take on a slow machine
SLOW = 60_000  # bytes a second, for the picture of a picture that comes about
LARGEST = 90_000  # bytes of a file in full color
SCENE = "a cartoon cat at the top left and a cartoon dog at the bottom right on green"


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    with ServerProcess(*filter(None, [options.model])) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        shots = Shots(browser, server.address, options.out)
        shots.walk(WIDE)
        shots.walk(PHONE, ON_PHONE)
        shots.dark(WIDE)
        shots.dark(PHONE, ON_PHONE)
        browser.close()


def _options() -> argparse.Namespace:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/studio"))
    parser.add_argument("--model", help="model directory; default: the shipped one")
    parser.add_argument("--chromium", default=found, help="path of a Chromium")
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("no Chromium found on the PATH; name one with --chromium")
    return options


class Shots:
    """The actions, one method each, in the order of the walk in docs/studio.md."""

    def __init__(self, browser: Browser, url: str, out: Path) -> None:
        self.browser, self.url, self.out = browser, url, out

    def open(self, size: dict[str, int], scheme: str = "light") -> Page:
        page = self.browser.new_context(viewport=size, color_scheme=scheme).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(self.url)
        page.locator("#main:not([inert])").wait_for()
        return page

    def save(self, page: Page, name: str, top: str = "body") -> None:
        """The visible part of the page from the element `top` on; in 256 colors where the file would be large."""
        page.locator(top).evaluate("node => node.scrollIntoView()")
        path = self.out / f"{name}.png"
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        picture.save(path, optimize=True)
        if path.stat().st_size > LARGEST:
            picture.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)

    def walk(self, size: dict[str, int], end: str = "") -> None:
        """All modes on a screen of a size; end: of the names of its pictures."""
        page = self.open(size)
        page.locator("#panel-draw textarea").fill(SCENE)
        if end:
            self.save(page, f"begin{end}")
        draw(page, SCENE, seed=1)
        self.save(page, f"draw{end}", top(end, "draw"))
        page.locator("#panel-draw").get_by_label("Ask about this picture").click()
        for question in ("describe the picture", "which style is the cat?", "what is at the top left?"):
            run(page, "ask", question)
        self.save(page, f"ask{end}", top(end, "ask"))
        self.edits(page, end)
        self.chat(page, end)
        page.locator("#tab-story").click()
        run(page, "story", "tell a story about a bear and a penguin by the sea in cartoon style", seed=1)
        self.save(page, f"story{end}", top(end, "story"))
        if end:
            self.save(page, f"history{end}", ".history")
            return
        page.locator("#tab-draw").click()
        think(page)
        self.save(page, "thinking")
        self.live(page)

    def edits(self, page: Page, end: str) -> None:
        page.locator("#tab-draw").click()
        page.locator("#panel-draw").get_by_label("Edit this picture").click()
        run(page, "edit", "replace the cat with a fox", seed=1)
        self.save(page, f"edit{end}", top(end, "edit"))
        page.get_by_text("Paint a part").click()
        paint(page, (0.12, 0.75), (0.38, 0.75))
        run(page, "edit", "cartoon cat top left, cartoon apple bottom left, cartoon dog bottom right on green", seed=1)
        self.save(page, f"brush{end}", "#panel-edit [data-part=brush]" if end else "body")

    def chat(self, page: Page, end: str) -> None:
        page.locator("#tab-draw").click()
        page.locator("#panel-draw").get_by_label("Chat about this picture").click()
        for words in ("what is at the bottom right?", "which style is it?", "how many dogs are there?"):
            run(page, "chat", words)
        self.save(page, f"chat{end}", top(end, "chat"))

    def live(self, page: Page) -> None:
        """The grid of codes, half filled in. Nothing is accepted early and the network is slow, so that one can look."""
        slow = {"offline": False, "latency": 0, "downloadThroughput": SLOW, "uploadThroughput": -1}
        page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
        panel = page.locator("#panel-draw")
        page.get_by_label("Think first").uncheck()
        settings = panel.locator("details.settings > summary")
        settings.click()
        panel.locator("details.settings-group > summary", has_text="Sampling").click()
        panel.get_by_label("Threshold", exact=True).fill("1")
        settings.click()
        panel.get_by_label("Pictures").fill("2")
        panel.locator("textarea").fill("a cartoon fox at the top left and a cartoon cactus at the bottom right on pink")
        page.keyboard.press("Control+Enter")
        panel.locator(".forming").nth(1).wait_for()
        self.save(page, "live")
        page.keyboard.press("Escape")

    def dark(self, size: dict[str, int], end: str = "") -> None:
        page = self.open(size, "dark")
        draw(page, "a flat frog and a flat mushroom on gray", seed=1)
        page.get_by_label("Show how it was composed").click()
        self.save(page, f"dark{end}", top(end, "draw"))


def top(end: str, mode: str) -> str:
    """What a picture begins with: the page, on a phone the result."""
    return f"#panel-{mode} .stage" if end else "body"


def run(page: Page, mode: str, words: str, seed: int | None = None) -> None:
    """Types the words, runs, and waits for the end."""
    panel = page.locator(f"#panel-{mode}")
    if seed is not None:
        panel.get_by_label("Seed", exact=True).fill(str(seed))
    panel.locator("textarea").fill(words)
    panel.locator("textarea").press("Control+Enter")
    panel.locator(".stage[aria-busy=false]").wait_for()
    if panel.locator(".notice").count():
        raise SystemExit(f"{mode}: {panel.locator('.notice').inner_text()}")


def draw(page: Page, words: str, seed: int) -> None:
    run(page, "draw", words, seed)


def think(page: Page) -> None:
    page.get_by_label("Think first").check()
    draw(page, "two plus one flat lemons", seed=1)
    page.locator("#panel-draw .thinking summary").click()


def paint(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A stroke on the mask, from and to shares of its sides."""
    canvas = page.locator("#panel-edit canvas")
    canvas.evaluate("node => node.scrollIntoView({ block: 'center' })")  # not under what stands at the foot of the screen
    box = canvas.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=8)
    page.mouse.up()


if __name__ == "__main__":
    main()
