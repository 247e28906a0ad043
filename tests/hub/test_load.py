"""A model by its name on the hub: only what a call needs is fetched, and a directory of that name comes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llada_uni.errors import UserError
from llada_uni.files.model_dir import KNOWN
from llada_uni.hub.names import is_id, snapshot_of
from llada_uni.tasks.find import find_model, name_of
from tests.hub.conftest import ID, copy, same_files

WEIGHTS = {
    "backbone": "/model-00",
    "image_tokenizer": "image_tokenizer.safetensors",
    "code features": "sigvq_embedding.pt",
    "decoder": "/decoder/decoder_model.safetensors",
    "decoder-turbo": "/decoder-turbo/model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def fetched(hub) -> set[str]:
    return {part for part, name in WEIGHTS.items() if any(name in request.path for request in hub.log if request.sent)}


DRAW = f"""
from llada_uni.model import UniModel
model = UniModel.from_pretrained({ID!r}, device="cpu")
value = [model.generate_image("a cat", seed=1, decoder=name).codes.codes for name in {{}}]
"""
ASK = f"""
from PIL import Image
from llada_uni.model import UniModel
model = UniModel.from_pretrained({ID!r}, device="cpu")
value = model.understand(Image.new("RGB", (32, 32), "red"), "what is there?", seed=1).text
"""


def test_nothing_large_is_fetched_before_a_call_needs_it(client, hub):
    answer = client.python(f"from llada_uni.model import UniModel\nUniModel.from_pretrained({ID!r})")
    assert answer.code == 0, answer.err
    assert fetched(hub) == set() and not hub.asked("tokenizer.json")


def test_codes_need_the_backbone_only_and_an_image_the_turbo_decoder(client, hub, published):
    codes = client.python(DRAW.format(["none"]))
    assert codes.code == 0, codes.err
    assert fetched(hub) == {"backbone"}
    drawn = client.python(DRAW.format(["turbo"]))
    assert fetched(hub) == {"backbone", "code features", "decoder-turbo", "vae"}
    assert drawn.value == codes.value
    local = client.python(DRAW.format(["turbo"]).replace(repr(ID), repr(str(published))))
    assert local.value == drawn.value, "the same model as in its directory"


def test_an_answer_needs_backbone_and_image_tokenizer(client, hub):
    answer = client.python(ASK)
    assert answer.code == 0, answer.err
    assert fetched(hub) == {"backbone", "image_tokenizer"}


def test_the_command_line_takes_a_name(client, hub, tmp_path):
    answer = client.command("generate", "a cat", "-m", ID, "--seed", 1, "-o", tmp_path / "cat.png", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert (tmp_path / "cat.png").is_file()
    client.environment = {"LLADA_UNI_MODEL": ID}
    assert client.command("encode", tmp_path / "cat.png", "--device", "cpu").code == 0
    assert fetched(hub) == set(WEIGHTS) - {"decoder"}
    client.environment = {"LLADA_UNI_MODEL": None}


def test_the_saved_copy_of_a_model_on_the_hub_is_whole(client, published, tmp_path):
    saved = tmp_path / "saved"
    answer = client.python(
        f"from llada_uni.model import UniModel\nUniModel.from_pretrained({ID!r}).save_pretrained({str(saved)!r})"
    )
    assert answer.code == 0, answer.err
    assert same_files(saved, published)


def test_a_revision_is_its_own_snapshot(client, hub, published, tmp_path):
    other = copy(published, tmp_path / "other")
    (other / "generation_config.json").write_text('{"block_length": 4}')
    commit = hub.put(ID, other, "small")
    opened = "from llada_uni.model import UniModel\nmodel = UniModel.from_pretrained({!r}, revision={!r})"
    source = opened + "\nvalue = model.parts.defaults.block_length"
    assert client.python(source.format(ID, None)).value == 8
    assert client.python(source.format(ID, "small")).value == 4
    assert client.python(source.format(ID, commit)).value == 4
    root = client.home / "hub" / "models--org--tiny"
    assert client.python(source.format(str(root), "small")).value == 4, "the cache's directory of the model"
    assert client.python(source.format(str(root), None)).value == 8
    answer = client.python(source.format(str(root), "large"))
    assert "has no revision 'large'; it has main, small" in answer.line


def test_offline_the_cache_serves_and_says_what_it_lacks(client, hub):
    assert client.python(DRAW.format(["none"])).code == 0
    hub.log.clear()
    client.offline = True
    assert client.python(DRAW.format(["none"])).code == 0
    answer = client.python(DRAW.format(["turbo"]))
    assert answer.code == 2
    assert f"the cache lacks the weights of decoder-turbo of {ID}: run llada-uni pull {ID} with a connection" in answer.line
    client.home = client.home / "empty"
    answer = client.python(DRAW.format(["none"]))
    assert answer.code == 2
    assert f"does not have {ID}; it is not fetched: HF_HUB_OFFLINE or local_files_only is set" in answer.line
    assert not hub.log, "nothing was asked of the network"


def test_local_files_only_asks_nothing_of_the_network(client, hub):
    source = f"from llada_uni.model import UniModel\nUniModel.from_pretrained({ID!r}, local_files_only=True)"
    assert client.python(source).code == 2
    assert not hub.log


def test_info_reads_headers_and_convert_fetches_all(client, hub, published, tmp_path):
    answer = client.command("info", ID, "--json")
    assert answer.code == 0, answer.err
    assert {part["name"] for part in json.loads(answer.out)["parts"]} == set(WEIGHTS) - {"code features"}
    assert not hub.asked("sigvq_embedding.pt")
    answer = client.command("convert", ID, tmp_path / "stacked")
    assert answer.code == 0, answer.err
    assert fetched(hub) == set(WEIGHTS)


def test_the_diffusers_pipeline_moves_and_still_fetches(client, hub):
    source = f"""
from llada_uni.adapters.diffusers_pipeline import LLaDA2UniPipeline
import torch
pipe = LLaDA2UniPipeline.from_pretrained({ID!r}).to(torch.bfloat16)
value = pipe("a cat", generator=torch.Generator().manual_seed(1)).images[0].size
"""
    answer = client.python(source)
    assert answer.code == 0, answer.err
    assert answer.value == [32, 32]


# --- without a hub ---


def test_a_directory_of_that_name_comes_first(published, tmp_path, monkeypatch):
    copy(published, tmp_path / "org" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert find_model(ID) == Path(ID)


def test_the_home_directory_and_cache_roots_are_understood(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "models--org--tiny"
    copy(published, root / "snapshots" / "0123")
    assert find_model("~/models--org--tiny") == root / "snapshots" / "0123"
    (root / "snapshots" / "4567").mkdir()
    with pytest.raises(UserError, match="has no revision 'main'; it has 0123, 4567: name one of them, or fetch it"):
        snapshot_of(root)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123")
    assert snapshot_of(root).name == "0123"


@pytest.mark.parametrize(
    ("name", "so"),
    [
        ("org/name", True), ("inclusionAI/LLaDA2.0-Uni", True), ("a/b.c_d-e", True),
        ("name", False), ("a/b/c", False), ("./name", False), ("../name", False), ("/a/b", False), ("~/name", False),
        ("a/..", False), ("a/b--c", False), ("a/", False), ("a/ b", False), ("ä/b", False), ("", False),
    ],
)  # fmt: skip
def test_what_has_the_form_of_a_name(name, so):
    assert is_id(name) is so


def test_a_name_that_is_neither_is_said_to_be_neither(tmp_path):
    with pytest.raises(UserError, match="give a directory, or a name org/name on the hub, or the name 'world'"):
        find_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"holds no model: none of {KNOWN[0]}"):
        find_model(tmp_path / "empty")


def test_a_snapshot_is_called_by_the_name_of_the_model(published, tmp_path):
    folder = copy(published, tmp_path / "models--org--tiny" / "snapshots" / "0123")
    assert name_of(folder) == "org/tiny" and name_of(published) == "tiny"
