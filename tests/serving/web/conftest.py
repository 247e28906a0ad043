"""A browser, the studio served by the fake server, and what a test needs to use it as a person would.

Skipped only where there is no Chromium: set LLADA_UNI_CHROMIUM to one that is not on the PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.serving.web.fake_server import Seen, create_fake

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The path of a Chromium on this machine, or None."""
    return os.environ.get("LLADA_UNI_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


# All of a module and not of the session: while Playwright runs, its event loop keeps other tests from running theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip(f"no Chromium found ({', '.join(NAMES)})")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[str, Seen]]:
    """Address and record of a fake server on a free port."""
    app = create_fake()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.seen
    server.should_exit = True
    thread.join()


@pytest.fixture
def seen(fake: tuple[str, Seen]) -> Seen:
    """The fake server's record, as after its start."""
    record = fake[1]
    record.__init__()
    return record


@pytest.fixture(scope="module")
def profile(browser: Browser, fake: tuple[str, Seen]) -> Iterator[BrowserContext]:
    """One browser profile for all tests of a module, which so need to load the studio's files once."""
    context = browser.new_context(base_url=fake[0], viewport={"width": 1280, "height": 800})
    context.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    yield context
    context.close()


@pytest.fixture
def context(profile: BrowserContext, fake: tuple[str, Seen], seen: Seen) -> Iterator[BrowserContext]:
    """The profile, as if it were new: no pages, nothing stored."""
    yield profile
    profile.unroute_all()
    profile.set_offline(False)
    cleaner = profile.new_page()
    for page in profile.pages:
        if page is not cleaner:
            page.close()
    cleaner.context.new_cdp_session(cleaner).send("Storage.clearDataForOrigin", {"origin": fake[0], "storageTypes": "all"})
    cleaner.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The studio, ready; the test fails when the page logs an error or breaks its content policy."""
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    open_studio(page)
    yield page
    allowed = "Failed to load resource"  # how Chromium reports an answer of 4xx, which some tests ask for
    assert [trouble for trouble in troubles if allowed not in trouble] == []


def open_studio(page: Page, mode: str = "draw") -> None:
    page.goto(f"/#{mode}")
    page.locator("#main:not([inert])").wait_for()
