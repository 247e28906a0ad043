"""The doctor finds what is wrong with a directory or a model on the hub, and says what to do."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.doctor.doctor import diagnose
from llada_uni.errors import UserError
from llada_uni.hub.skeleton import looked_at
from tests.hub.conftest import ID, copy
from tests.hub.server import Fault


@pytest.fixture
def model(published, tmp_path):
    """A copy that a test may break."""
    return copy(published, tmp_path / "model")


def wrong(folder, deep: bool = False) -> dict[str, str]:
    """The checks that fail, and what they say."""
    return {check.name: check.detail for check in diagnose(str(folder), deep=deep).checks if check.ok is False}


def test_a_whole_directory_is_well(model):
    found = diagnose(str(model), deep=True)
    assert found.ok and not wrong(model)
    assert {check.name for check in found.checks} >= {"files", "links", "backbone", "vae", "text tokenizer", "vae, values"}
    assert found.settings["block_length"] == 8 and found.settings["profile"] == "plain"
    assert found.commands[0].startswith(f'llada-uni generate "a lighthouse at sunset" -m {model} --device')
    assert json.loads(json.dumps(found.to_json()))["needs"][0]["form"] == "float32"
    (model / "generation_config.json").unlink()
    assert diagnose(str(model)).settings["profile"] == "published"


def test_a_shard_that_is_cut_short(model):
    shard = next(model.glob("model-00002*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    assert "is truncated or damaged" in wrong(model)["backbone"] and "fetch it again" in wrong(model)["backbone"]


def test_a_shard_that_is_missing_or_that_nobody_names(model):
    shard = next(model.glob("model-00002*"))
    shutil.copy(shard, model / "model-00009-of-00009.safetensors")
    assert "model-00009-of-00009.safetensors, which model.safetensors.index.json does not name" in wrong(model)["files"]
    (model / "model-00009-of-00009.safetensors").unlink()
    shard.unlink()
    assert f"names {shard.name}, which is not there; fetch that file as well" in wrong(model)["backbone"]


def test_a_shard_of_another_revision(model):
    """Told by its tensors where they differ, by the notes of the hub's client where only its values do."""
    first, second, *_ = sorted(model.glob("model-0*"))
    notes = model / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for file in model.glob("*.safetensors"):
        commit = "b" * 40 if file == first else "a" * 40
        (notes / f"{file.name}.metadata").write_text(f"{commit}\netag\n0\n")
    assert f"{first.name} is of revision bbbbbbbbbbbb, the others of aaaaaaaaaaaa; fetch it again" in wrong(model)["sizes"]
    shutil.copy(second, first)
    assert "they are of different revisions: fetch both again" in wrong(model)["backbone"]


def test_a_part_whose_tensors_are_not_those_of_its_config(model):
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps({**config, "latent_channels": 3}))
    assert "has the shape" in wrong(model)["vae"]
    file = model / "decoder-turbo" / "model.safetensors"
    tensors = load_file(file)
    tensors["wings"] = torch.zeros(1)
    save_file(tensors, file)
    assert "has the unknown tensor wings" in wrong(model)["decoder-turbo"]


def test_a_decoder_whose_config_does_not_know_the_width_of_its_condition(model):
    """The published configs leave it to their program; the weights have it."""
    file = model / "decoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cap_feat_dim": 2560}))
    assert not wrong(model)


def test_a_config_for_another_architecture(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert "describes a model of type 'llama'" in wrong(model)["backbone"]


def test_a_tokenizer_with_other_ids(model):
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["id"] += 1000
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "they are of different models; take both from one" in wrong(model)["text tokenizer"]


def test_a_link_out_of_the_directory(model, tmp_path):
    (tmp_path / "secret").write_text("{}")
    (model / "vae" / "secret.json").symlink_to(tmp_path / "secret")
    assert "is a link that leads out of the model directory; put the file itself there" in wrong(model)["links"]


def test_values_that_are_not_finite_are_found_on_request(model):
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file)
    assert not wrong(model)
    assert f"the tensor {name} holds values that are not finite; fetch the file again" in wrong(model, deep=True)["vae, values"]


def test_half_a_download_and_damage_in_a_pulled_directory(client, hub, tmp_path):
    hub.faults = [Fault("/model-00002", status=500)]
    folder = tmp_path / "tiny"
    assert client.command("pull", ID, "--to", folder).code == 2
    answer = client.command("doctor", folder)
    assert answer.code in (1, 2), "2 where not even one part is there"
    said = answer.out + answer.err
    assert f"half a download of {ID}: " in said and f"run llada-uni pull {ID} --revision main --to {folder}" in said
    hub.faults.clear()
    assert client.command("pull", ID, "--to", folder).code == 0
    assert client.command("doctor", folder, "--deep").code == 0
    shard = next(folder.glob("model-00001*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert client.command("doctor", folder).code == 0, "the same size"
    answer = client.command("doctor", folder, "--deep", "--json")
    assert answer.code == 1
    (bad,) = [check for check in json.loads(answer.out)["checks"] if check["ok"] is False]
    assert bad["name"] == "hashes" and f"{shard.name} is not the file of {ID}" in bad["detail"]


def test_a_model_on_the_hub_is_examined_without_its_weights(client, hub, published):
    answer = client.command("doctor", ID, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["commit"] == hub.models[ID].branches["main"] and found["ok"]
    local = diagnose(str(published)).to_json()
    stored = {part["name"]: part["bytes_stored"] for part in local["parts"] if part["name"] != "code features"}
    assert {part["name"]: part["bytes_stored"] for part in found["parts"]} == stored
    assert found["commands"][0].startswith(f'llada-uni generate "a lighthouse at sunset" -m {ID} ')
    weights = sum(path.stat().st_size for path in published.rglob("*.safetensors"))
    asked = [request for request in hub.log if request.path.endswith(".safetensors") and request.sent]
    assert all(request.range.startswith("bytes=0-") for request in asked)
    assert sum(request.sent for request in asked) < weights / 2, "the first kilobytes of each"
    assert not hub.asked("sigvq_embedding.pt")
    assert "--deep reads every value" in client.command("doctor", ID, "--deep").line


def test_a_broken_model_on_the_hub_is_found(client, hub, model):
    shard = next(model.glob("model-00002*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    hub.put("org/broken", model)
    answer = client.command("doctor", "org/broken")
    assert answer.code == 1 and "is truncated or damaged" in answer.out
    next(model.glob("model-00001*")).write_bytes(b"no safetensors at all")
    hub.put("org/worse", model)
    answer = client.command("doctor", "org/worse")
    assert answer.code == 2 and "is no safetensors file (21 bytes)" in answer.line


def test_there_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"there is no model directory .*; give a directory, or a name org/name on the hub"):
        diagnose(str(tmp_path / "nothing"))


def test_the_shipped_model_goes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with looked_at("world") as (path, listing):
        assert (path / "config.json").is_file() and listing is None
