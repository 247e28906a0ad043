"""The recorded checks: all pass on the recorded directory, and each one notices what it is there for."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llada_uni.checkpoint.load import convert
from llada_uni.errors import UserError
from llada_uni.verify.verify import Check, verify

RELEASED = 31  # rows of released.json


@pytest.fixture
def copy(golden, tmp_path):
    """The recorded directory, but for the generations of released.json, which have tests of their own."""
    return shutil.copytree(golden, tmp_path / "copy", ignore=shutil.ignore_patterns("released.json"))


@pytest.fixture
def released(golden, tmp_path):
    """Nothing but the backbone and the generations of released.json."""
    folder = tmp_path / "released" / "backbone"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "released.json"):
        shutil.copy(golden / "backbone" / name, folder / name)
    return folder


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


def names(checks: list[Check]) -> set[str]:
    return {check.name for check in checks}


def test_everything_passes(golden):
    heard: list[Check] = []
    checks = verify(golden, on_check=heard.append)
    assert heard == checks
    assert failed(checks) == set(), [check for check in checks if not check.ok]
    assert len(checks) == 40 + RELEASED
    assert len(names(checks)) == len(checks)
    kinds = {name.split(".")[0] + "." + name.split(".")[1] for name in names(checks)}
    assert kinds == {
        "backbone.logits", "backbone.hidden", "backbone.router", "backbone.generation", "backbone.released",
        "image.codes", "image.sizes", "image.crop",
        "decoder.condition", "decoder.velocity", "decoder.latents", "decoder.pixels",
    }  # fmt: skip
    for check in checks:
        assert check.largest_error <= check.tolerance <= 1e-4
        json.dumps(check.to_json(), allow_nan=False)


def test_a_released_directory_has_its_backbone_at_the_top(copy):
    for file in list((copy / "backbone").iterdir()):
        shutil.move(file, copy / file.name)
    (copy / "backbone").rmdir()
    checks = verify(copy)
    assert failed(checks) == set()
    assert len(checks) == 40


def test_our_layout_computes_the_same(copy, tmp_path):
    convert(copy, tmp_path / "ours")
    checks = verify(tmp_path / "ours")
    assert len(checks) == 40 and failed(checks) == set()


def perturb(file, name, amount):
    tensors = load_file(file)
    tensors[name].view(-1)[0] += amount
    save_file(tensors, file)


def test_one_wrong_weight_or_number_is_noticed_where_it_matters(copy):
    perturb(copy / "backbone" / "forward.safetensors", "logits.full.logits", 0.001)
    perturb(copy / "backbone" / "forward.safetensors", "router.1.topk", 1)
    perturb(copy / "decode.safetensors", "latents.decoder-turbo.8", 0.001)
    perturb(copy / "decode.safetensors", "pixels.decoder.10", float("nan"))
    tokens = json.loads((copy / "image_tokenizer" / "tokens.json").read_text())
    tokens[0]["token_ids"][3] ^= 1
    (copy / "image_tokenizer" / "tokens.json").write_text(json.dumps(tokens))
    sizes = json.loads((copy / "resize.json").read_text())
    sizes["sizes"][0]["edit_after_crop"][0] += 32
    (copy / "resize.json").write_text(json.dumps(sizes))
    picture = Image.open(copy / "crop_edit_output.png").convert("RGB")
    picture.putpixel((5, 5), tuple(255 - level for level in picture.getpixel((5, 5))))
    picture.save(copy / "crop_edit_output.png")
    generations = json.loads((copy / "backbone" / "generation.json").read_text())
    generations[2]["output"][-1] += 1
    (copy / "backbone" / "generation.json").write_text(json.dumps(generations))
    checks = verify(copy)
    assert len(checks) == 40
    assert failed(checks) == {
        "backbone.logits.full.logits",
        "backbone.router.1.topk",
        "backbone.generation.2.text",
        "decoder.latents.decoder-turbo.8",
        "decoder.pixels.decoder.10",
        "image.codes.image_0.png",
        "image.sizes",
        "image.crop.edit",
    }
    rows = {check.name: check for check in checks}
    assert rows["image.codes.image_0.png"].largest_error == 1
    assert "codes 3" in rows["image.codes.image_0.png"].detail
    assert rows["image.crop.edit"].largest_error == 3
    assert rows["decoder.pixels.decoder.10"].largest_error is None
    assert rows["backbone.logits.full.logits"].largest_error == pytest.approx(0.001, abs=1e-4)
    json.dumps([check.to_json() for check in checks], allow_nan=False)


def test_a_missing_file_skips_its_checks_only(copy):
    everything = names(verify(copy))
    (copy / "resize.json").unlink()
    (copy / "image_tokenizer" / "image_2.png").unlink()
    shutil.rmtree(copy / "decoder-turbo")
    (copy / "backbone" / "generation.json").unlink()
    checks = verify(copy)
    assert failed(checks) == set()
    gone = {name for name in everything if name.startswith(("backbone.generation", "image.sizes"))}
    gone |= {"image.codes.image_2.png", "decoder.latents.decoder-turbo.8"}
    assert names(checks) == everything - gone
    shutil.rmtree(copy / "image_tokenizer")
    left = names(verify(copy))
    assert "decoder.pixels.decoder.10" in left  # the VAE alone can still be checked
    assert not any(name.startswith(("image.codes", "decoder.latents", "decoder.condition")) for name in left)


def test_a_broken_part_fails_its_checks_only(copy):
    file = copy / "decoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    (copy / "backbone" / "generation.json").write_text("[{")
    checks = verify(copy)
    assert failed(checks) == {
        "backbone.generation",
        "decoder.velocity.decoder",
        "decoder.latents.decoder.10",
        "decoder.latents.decoder.50",
    }
    row = next(check for check in checks if check.name == "decoder.velocity.decoder")
    assert row.largest_error is None
    assert "truncated" in row.detail


def test_a_wrong_weight_is_noticed(copy):
    perturb(copy / "image_tokenizer" / "model.safetensors", "model.visual.patch_embed.proj.bias", 3.0)
    perturb(copy / "backbone" / "model.safetensors", "model.layers.1.attention.dense.weight", 0.5)
    bad = failed(verify(copy))
    assert any(name.startswith("image.codes") for name in bad)
    assert {"backbone.logits.block8.logits", "backbone.hidden.2"} <= bad
    assert "backbone.hidden.1" not in bad
    assert not any(name.startswith("decoder") for name in bad)


def test_other_sizes_of_the_format(copy):
    """Names of blocks and steps are read, not known: renamed and re-recorded numbers are still checked."""
    tensors = load_file(copy / "decode.safetensors")
    tensors["latents.decoder.2"] = torch.zeros_like(tensors["latents.decoder.10"])
    save_file(tensors, copy / "decode.safetensors")
    recorded = load_file(copy / "backbone" / "forward.safetensors")
    recorded["logits.block16.input_ids"] = recorded["logits.block8.input_ids"]
    recorded["logits.block16.logits"] = recorded["logits.block8.logits"]
    save_file({name: tensor.clone() for name, tensor in recorded.items()}, copy / "backbone" / "forward.safetensors")
    assert failed(verify(copy)) == {"decoder.latents.decoder.2", "backbone.logits.block16.logits"}


def test_nothing_to_check(tmp_path, golden):
    with pytest.raises(UserError, match="there is no directory"):
        verify(tmp_path / "none")
    with pytest.raises(UserError, match="holds no recorded numbers"):
        verify(tmp_path)
    shutil.copytree(golden / "vae", tmp_path / "vae")
    with pytest.raises(UserError, match="holds no recorded numbers"):
        verify(tmp_path)


def test_released_generations_are_a_row_each(released):
    checks = verify(released.parent, dtype=torch.float64)
    assert names(checks) == {check.name for check in checks if check.name.startswith("backbone.released.")}
    assert len(checks) == RELEASED and failed(checks) == set()
    assert all(check.tolerance == 0 and "tokens" in check.detail for check in checks)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda e: e["output"].__setitem__(-1, e["output"][-1] ^ 1), "tokens 23: "),
        (lambda e: e["output"].pop(), "24 tokens, recorded are 23"),
        (lambda e: e.update(evaluations=e["evaluations"] + 1), "27 steps, recorded are 28"),
        (lambda e: e["kept_first_block"][2].pop(), "kept positions of layer 2"),
        (lambda e: e["sprint"].update(keep_ratio=0.5), ""),  # another setting gives another result
        (lambda e: e["sprint"].update(surprise=1), "unknown field 'surprise'"),
        (lambda e: e.update(remasking="best"), "remasking is 'best'; allowed: low_confidence, top_k_margin"),
        (lambda e: e.update(kind="video"), "kind is 'video'; allowed: image, text"),
        (lambda e: e.pop("eos_id"), "KeyError"),
    ],
)
def test_one_flipped_expectation_of_a_released_generation_fails(released, change, detail):
    """Of one entry alone; the others are the business of the test above."""
    entries = json.loads((released / "released.json").read_text())
    entry = entries[11]
    change(entry)
    (released / "released.json").write_text(json.dumps([entries[30], entry]))
    checks = verify(released.parent)
    assert [check.ok for check in checks] == [True, False]
    assert detail in checks[1].detail and (checks[1].largest_error or 1) > 0
