"""Ask, chat, story: words as they settle, turns as the server gets them, pictures in their place."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.serving.web.actions import give_picture, hold_seed, last_body, panel, run, show
from tests.serving.web.fake_server import Seen

PATH = "/v1/chat/completions"


def kinds(message: dict) -> list[str]:
    """The kinds of the parts of a message, or its words."""
    content = message["content"]
    return [content] if isinstance(content, str) else [part.get("text", part["type"]) for part in content]


def test_a_question_about_a_picture(page: Page, seen: Seen) -> None:
    show(page, "ask")
    alert = run(page, "ask", "what is there?").get_by_role("alert")
    expect(alert).to_contain_text("There is no picture to ask about yet")
    give_picture(page, "ask")
    stage = run(page, "ask", "what is there?")
    expect(stage.locator(".said")).to_have_text("a cat at the top left")
    expect(alert).to_be_empty()
    body = last_body(seen, PATH)
    assert [kinds(message) for message in body["messages"]] == [["image_url", "what is there?"]]
    assert "modalities" not in body
    stage = run(page, "ask", "and where?")
    assert stage.locator(".asked").all_text_contents() == ["and where?", "what is there?"]  # the newest first


def test_an_empty_answer_says_so(page: Page, seen: Seen) -> None:
    show(page, "ask")
    give_picture(page, "ask")
    stage = run(page, "ask", "be silent")
    expect(stage.locator(".said")).to_have_text("The model gave no answer. Ask in other words, or show another picture.")
    stage = run(page, "ask", "what is there?")
    expect(stage.locator(".said").first).to_have_text("a cat at the top left")


def test_words_that_were_not_sent_survive_a_reload(page: Page, seen: Seen) -> None:
    for mode in ("draw", "ask"):
        show(page, mode)
        panel(page, mode).locator("textarea").fill(f"half a sentence for {mode}")
    page.reload()
    for mode in ("draw", "ask"):
        show(page, mode)
        expect(panel(page, mode).locator("textarea")).to_have_value(f"half a sentence for {mode}")


def test_the_sizes_are_those_the_model_was_trained_for_and_others_say_that_they_are_not(page: Page, seen: Seen) -> None:
    show(page, "draw")
    sizes = panel(page, "draw").locator("select[name=size] option").all_text_contents()
    of_its_own = "192 \u00d7 192"
    assert sizes == [of_its_own, *(f"{side} \u00d7 {side}, enlarged from {of_its_own}" for side in (384, 768))]


def test_a_conversation_keeps_its_turns(page: Page, seen: Seen) -> None:
    show(page, "chat")
    give_picture(page, "chat")
    run(page, "chat", "what is there?")
    expect(panel(page, "chat").locator(".slot")).to_have_count(0)  # the picture belongs to the turn now
    stage = run(page, "chat", "which style is it?")
    messages = last_body(seen, PATH)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [kinds(message) for message in messages] == [
        ["image_url", "what is there?"], ["a cat at the top left"], ["which style is it?"]
    ]  # fmt: skip
    expect(stage.locator(".bubble")).to_have_count(4)
    expect(page.locator(".past")).to_have_count(1)  # one conversation, one entry
    page.get_by_text("Start afresh").click()
    expect(stage.locator(".bubble")).to_have_count(0)
    run(page, "chat", "hello")
    assert len(last_body(seen, PATH)["messages"]) == 1


def test_a_failed_turn_leaves_the_conversation_as_it_was(page: Page, seen: Seen) -> None:
    show(page, "chat")
    run(page, "chat", "hello")
    stage = run(page, "chat", "break here")
    expect(stage.locator(".bubble")).to_have_count(2)
    expect(panel(page, "chat").locator("textarea")).to_have_value("break here")  # nothing to type again
    run(page, "chat", "once more")
    assert [message["role"] for message in last_body(seen, PATH)["messages"]] == ["user", "assistant", "user"]


def test_answers_may_hold_pictures(page: Page, seen: Seen) -> None:
    show(page, "chat")
    page.get_by_label("May answer with pictures").check()
    stage = run(page, "chat", "show me a bear")
    expect(stage.locator(".assistant img")).to_have_count(2)
    assert last_body(seen, PATH)["modalities"] == ["text", "image"]
    run(page, "chat", "and now?")
    assert kinds(last_body(seen, PATH)["messages"][1]) == [
        "image_url", "image_url", "the bear plays by the sea the bear finds a cake"
    ]  # fmt: skip


def test_a_story_in_order(page: Page, seen: Seen) -> None:
    show(page, "story")
    hold_seed(page, "story", 4)
    panel(page, "story").locator("summary", has_text="Settings").click()
    panel(page, "story").get_by_label("Most images").fill("2")
    scenes = run(page, "story", "a story about a bear").locator(".scene")
    expect(scenes).to_have_count(2)
    assert scenes.locator(".said").all_text_contents() == ["the bear plays by the sea", "the bear finds a cake"]
    expect(scenes.get_by_role("img", name="the bear finds a cake")).to_be_visible()
    body = last_body(seen, PATH)
    assert (body["modalities"], body["max_frames"], body["seed"]) == (["text", "image"], 2, 4)
