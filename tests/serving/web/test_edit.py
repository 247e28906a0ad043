"""Edit: instructions with references, and the brush: its mask as the server gets it, by mouse, keys and touch."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from tests.serving.web.actions import give_picture, last_body, open_settings, opened, panel, run, show
from tests.serving.web.conftest import open_studio
from tests.serving.web.fake_server import Seen

PATH = "/v1/images/edits"


def white_share(seen: Seen) -> float:
    """Share of the mask that is white, in the last request."""
    mask = opened(last_body(seen, PATH)["mask"])
    assert mask.size == (192, 192)
    white = mask.convert("L").histogram()
    assert white[0] + white[255] == 192 * 192  # black and white only
    return white[255] / 192**2


def open_brush(page: Page) -> dict[str, float]:
    """Puts a picture under the brush; where it is on the screen."""
    show(page, "edit")
    give_picture(page, "edit")
    page.get_by_text("Paint a part").click()
    canvas = panel(page, "edit").locator("canvas")
    canvas.evaluate("node => node.scrollIntoView({ block: 'center' })")
    box = canvas.bounding_box()
    assert box is not None
    return box


def test_an_instruction_with_references(page: Page, seen: Seen) -> None:
    show(page, "edit")
    for seed in (1, 2, 3):
        give_picture(page, "edit", seed)
    panel(page, "edit").get_by_label("Remove picture 2").click()
    stage = run(page, "edit", "make the background pink")
    expect(stage.locator(".frame img")).to_be_visible()
    body = last_body(seen, PATH)
    assert body["prompt"] == "make the background pink" and "mask" not in body
    colors = [opened(url).convert("RGB").getpixel((0, 0)) for url in body["images"]]
    assert colors == [(0x8A, 0xC0, 0xF6), (0xFF, 0xE2, 0x6E)]  # the first and the third


def test_painting_with_the_mouse(page: Page, seen: Seen) -> None:
    box = open_brush(page)
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25, steps=5)
    page.mouse.up()
    run(page, "edit", "a cat and an apple")
    expected = 0.5 * 0.25 + 3.1416 * 0.125**2  # a stroke half as long as the side, a quarter wide, with round ends
    assert abs(white_share(seen) - expected) < 0.02
    mask = opened(last_body(seen, PATH)["mask"])
    assert mask.convert("L").getpixel((64, 32)) == 255 and mask.convert("L").getpixel((64, 100)) == 0
    assert last_body(seen, PATH)["mask_mode"] == "white"


def test_erase_undo_invert(page: Page, seen: Seen) -> None:
    open_brush(page)
    canvas = panel(page, "edit").locator("canvas")
    canvas.click()  # a dab in the middle
    run(page, "edit", "a cat")
    dab = white_share(seen)
    assert 0.03 < dab < 0.07
    tools = panel(page, "edit")
    tools.get_by_role("button", name="Invert").click()
    run(page, "edit", "a cat")
    assert abs(white_share(seen) - (1 - dab)) < 0.005
    tools.get_by_role("button", name="Undo").click()
    tools.get_by_role("button", name="Erase").click()
    canvas.click()
    expect(run(page, "edit", "a cat").get_by_role("alert")).to_contain_text("Nothing is painted yet")
    tools.get_by_role("button", name="Undo").click()
    run(page, "edit", "a cat")
    assert white_share(seen) == dab


def test_painting_with_keys(page: Page, seen: Seen) -> None:
    open_brush(page)
    canvas = panel(page, "edit").locator("canvas")
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "Space"):
        canvas.press(key)
    run(page, "edit", "a cat")
    mask = opened(last_body(seen, PATH)["mask"]).convert("L")
    assert mask.getpixel((72, 72)) == 255 and mask.getpixel((120, 120)) == 0  # half a brush to the left and up
    canvas.press("z")
    expect(run(page, "edit", "a cat").get_by_role("alert")).to_contain_text("Nothing is painted yet")


def test_painting_by_touch(browser: Browser, fake: tuple[str, Seen], seen: Seen) -> None:
    context = browser.new_context(base_url=fake[0], viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    open_studio(page)
    box = open_brush(page)
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    run(page, "edit", "a cat")
    assert 0.03 < white_share(seen) < 0.07
    context.close()


def test_the_settings_follow_the_way_of_editing(page: Page) -> None:
    open_brush(page)
    form = panel(page, "edit").locator("form")
    open_settings(form)
    expect(form.get_by_label("Guidance", exact=True)).to_be_visible()
    page.get_by_text("By instruction").click()
    expect(form.get_by_label("Guidance", exact=True)).to_be_hidden()
    expect(form.get_by_label("Text guidance")).to_be_visible()
