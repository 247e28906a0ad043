"""What a person does with the studio, as functions for the tests."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.serving.web.fake_server import Seen, picture


def panel(page: Page, mode: str) -> Locator:
    return page.locator(f"#panel-{mode}")


def show(page: Page, mode: str) -> Locator:
    """Opens a mode by its tab; its panel."""
    page.locator(f"#tab-{mode}").click()
    return panel(page, mode)


def run(page: Page, mode: str, words: str) -> Locator:
    """Types the words in the open mode, runs, and waits for the end; the stage."""
    box = panel(page, mode).locator("textarea")
    box.fill(words)
    box.press("Control+Enter")
    stage = panel(page, mode).locator(".stage")
    expect(stage).to_have_attribute("aria-busy", "false")
    return stage


def hold_seed(page: Page, mode: str, seed: int) -> None:
    panel(page, mode).get_by_label("Seed", exact=True).fill(str(seed))


def open_settings(form: Locator) -> None:
    """Opens the fold of the settings, and those of their headings."""
    form.locator("details.settings > summary").click()
    for heading in form.locator("details.settings-group:not([open]):visible > summary").all()[::-1]:
        heading.click()


def give_picture(page: Page, mode: str, seed: int = 1) -> None:
    """Chooses a picture file as a person would in the browser's dialog."""
    data = base64.b64decode(picture(seed))
    panel(page, mode).locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": data})
    expect(panel(page, mode).locator(".slot").last).to_be_visible()


def last_body(seen: Seen, path: str) -> dict[str, Any]:
    """What the page asked for last; it must have asked at `path`."""
    assert seen.bodies[-1][0] == path
    return seen.bodies[-1][1]


def opened(url: str) -> Image.Image:
    """The picture of a data address."""
    return Image.open(io.BytesIO(base64.b64decode(re.sub("^data:[^,]*,", "", url))))
