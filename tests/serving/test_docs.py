"""docs/serving.md is true: its code runs as it stands, and it names every field and option there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.protocol.chat import ChatRequest
from llada_uni.serving.http.protocol.images import EditRequest, GenerationRequest
from llada_uni.serving.http.protocol.responses import ResponsesRequest
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import live, wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_block_of_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    service = Service(UniModel.from_pretrained("world", "cpu"))
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        with live(create_app(service, ServerOptions(model_name="world"))) as address:
            names: dict[str, object] = {}
            for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
                exec(block.replace("http://127.0.0.1:8000", address), names)
    finally:
        service.close()
    said = capsys.readouterr().out
    assert "image_generation.completed 192x192" in said and "a picture of" in said
    assert {path.name for path in tmp_path.glob("cat-*.png")} == {"cat-7.png", "cat-8.png", "cat-9.png"}


@pytest.mark.parametrize("body", [ChatRequest, GenerationRequest, EditRequest, ResponsesRequest])
def test_every_field_is_named(body):
    """A setting with a prefix is named by the same one without it: the page says how prefixes work."""
    plain = {name: re.sub(r"^(image|reasoning)_", "", name) for name in body.model_fields}
    assert not [name for name in plain if f"`{name}`" not in PAGE and f"`{plain[name]}`" not in PAGE]
