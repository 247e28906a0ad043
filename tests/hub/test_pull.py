"""`llada-uni pull`, by the real client against a local hub."""

from __future__ import annotations

import json

from tests.hub.conftest import ID, same_files


def test_a_directory_is_filled_with_what_is_published_and_no_code(client, hub, published, tmp_path):
    answer = client.command("pull", ID, "--to", tmp_path / "tiny", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {"id": ID, "folder": str(tmp_path / "tiny")}
    assert same_files(tmp_path / "tiny", published)
    assert not hub.asked(".py") and not hub.asked(".md")


def test_the_cache_of_the_client_is_filled_and_serves_offline(client, hub, published):
    answer = client.command("pull", ID, "--json")
    assert answer.code == 0, answer.err
    folder = json.loads(answer.out)["folder"]
    assert same_files(type(published)(folder), published)
    hub.log.clear()
    client.offline = True
    theirs = client.python(f"from huggingface_hub import snapshot_download\nvalue = snapshot_download({ID!r})")
    assert theirs.value == folder and not hub.log


def test_what_is_there_is_not_fetched_again(client, hub, tmp_path):
    client.command("pull", ID, "--to", tmp_path / "tiny")
    hub.log.clear()
    assert client.command("pull", ID, "--to", tmp_path / "tiny").code == 0
    assert not hub.asked("/resolve/")
    assert not list(tmp_path.glob("**/*.incomplete"))
