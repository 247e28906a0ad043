"""Export: parts of several runs become one directory that every task accepts; mistakes leave what was there."""

from __future__ import annotations

import shutil
import string

import pytest
import torch
from PIL import Image

from llada_uni.checkpoint.layout import layout_of
from llada_uni.checkpoint.load import load_backbone, save_backbone
from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles, read_json, read_torch, write_json
from llada_uni.model import UniModel
from llada_uni.text.tokenizer import train_tokenizer
from llada_uni.training.export import export_model
from tests.tiny_model import make_tiny_model

FOREIGN = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase] * 2  # as many tokens as pairs of letters


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.fixture
def runs(tmp_path, tiny):
    """What the stages leave behind: each run has its part in RUN/model."""
    taken = {
        "s2": ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"],
        "quantizer": [f"image_tokenizer/{n}" for n in ("config.json", "preprocessor_config.json", "model.safetensors")],
        "vae": ["vae"],
        "decoder3": ["decoder", "image_tokenizer/sigvq_embedding.pt"],
        "distill": ["decoder-turbo"],
    }
    for run, names in taken.items():
        for name in names:
            target = tmp_path / "runs" / run / "model" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (tiny / name).is_dir() else shutil.copyfile
            copy(tiny / name, target)
    return [tmp_path / "runs" / run for run in taken]


def test_parts_of_runs_make_a_model_for_every_task(tmp_path, runs):
    written = export_model(tmp_path / "model", runs)
    assert written.missing == () and written.sources["code features"] == (runs[3] / "model",)
    model = UniModel.from_pretrained(tmp_path / "model", device="cpu")
    picture = Image.new("RGB", (32, 32), (90, 200, 90))
    for decoder in ("turbo", "base"):
        assert model.generate_image("a cat", seed=1, decoder=decoder).image.size == (32, 32)
    assert model.edit_image(picture, "a dog", seed=1, decoder="none").codes.width >= 1
    assert model.inpaint(picture, Image.new("L", (32, 32), 255), "a dog", seed=1, decoder="none").codes.width >= 1
    assert isinstance(model.understand(picture, "what is there?", seed=1).text, str)
    assert list(model.interleave("tell a story", max_frames=1, seed=1, decoder="none"))
    assert model.chat([{"role": "user", "content": "what is there?"}], seed=1, decoder="none").parts is not None


@pytest.mark.parametrize(("dtype", "layout"), [(None, "released"), (torch.float16, "released"), (torch.bfloat16, "stacked")])
def test_dtype_and_layout(tmp_path, runs, tiny, dtype, layout):
    out = export_model(tmp_path / "model", runs, dtype, layout).folder
    weights, before = WeightFiles(out), WeightFiles(tiny)
    assert layout_of(weights) == layout
    name = "model.layers.0.attention.dense.weight"
    expected = before.tensor(name).to(dtype or before.dtypes[name])
    assert torch.equal(weights.tensor(name), expected) and weights.dtypes[name] == expected.dtype
    assert weights.dtypes["model.layers.1.mlp.gate.weight"] == torch.float32
    for folder, file in (("decoder", "model.safetensors"), ("vae", "diffusion_pytorch_model.safetensors")):
        kinds = set(WeightFiles(out / folder, file).dtypes.values())
        assert kinds == (set(WeightFiles(tiny / folder, file).dtypes.values()) if dtype is None else {dtype})
    features = read_torch(out / "image_tokenizer" / "sigvq_embedding.pt")
    assert dtype is None or {tensor.dtype for tensor in features.values()} == {dtype}


def test_later_sources_override_part_by_part(tmp_path, runs, tiny):
    other = tmp_path / "other"
    shutil.copytree(tiny / "vae", other / "vae")
    shutil.copyfile(tiny / "generation_config.json", other / "generation_config.json")
    written = export_model(tmp_path / "model", [tiny, *runs[:1], other])
    assert written.sources["vae"] == written.sources["settings"] == (other,)
    assert written.sources["backbone"] == (runs[0] / "model",) and written.sources["decoder"] == (tiny,)


@pytest.fixture
def scaled(tmp_path, tiny):
    """The backbone times 1, 0.5 and 2, as three runs."""
    folders = []
    for i, factor in enumerate((1.0, 0.5, 2.0)):
        model = load_backbone(tiny, dtype=torch.float32)
        with torch.no_grad():
            for weight in model.state_dict().values():
                weight.mul_(factor)
        folders.append(tmp_path / f"run{i}" / "model")
        folders[-1].mkdir(parents=True)
        save_backbone(model, folders[-1], "stacked" if i == 1 else "released")  # whichever way each is stored
    return folders


@pytest.mark.parametrize("layout", ["released", "stacked"])
def test_the_backbone_can_be_the_mean_of_several_runs(tmp_path, tiny, scaled, layout):
    written = export_model(
        tmp_path / "model", [tiny], layout=layout, dtype=torch.float32, average=[folder.parent for folder in scaled]
    )
    assert written.sources["backbone"] == tuple(scaled) and written.sources["decoder"] == (tiny,)
    mean, start = (load_backbone(folder, dtype=torch.float32).state_dict() for folder in (tmp_path / "model", tiny))
    for name, weight in start.items():
        torch.testing.assert_close(mean[name], weight * (3.5 / 3), msg=name)


def test_the_backbone_can_go_part_of_the_way_and_keep_weights(tmp_path, tiny, scaled):
    keep = ["lm_head.weight", "*.1.*.experts.*_proj"]
    written = export_model(tmp_path / "model", [tiny], dtype=torch.float32, average=scaled, fraction=0.75, keep=keep)
    assert written.sources["backbone"] == tuple(scaled)
    found, start = (load_backbone(folder, dtype=torch.float32).state_dict() for folder in (tmp_path / "model", tiny))
    kept = {"lm_head.weight", *(f"model.layers.1.mlp.experts.{kind}_proj" for kind in ("gate", "up", "down"))}
    assert kept < set(start)
    for name, weight in start.items():
        torch.testing.assert_close(found[name], weight * (1.0 if name in kept else 1 + 0.75 * 0.5 / 3), msg=name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fraction": 0.0}, "allowed: above 0 and at most 1"),
        ({"fraction": 1.5}, "allowed: above 0 and at most 1"),
        ({"keep": ["head"]}, r"no weight is called 'head'.*lm_head\.weight"),
        ({"fraction": 0.5, "average": []}, "there is no average"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(tmp_path, tiny, changes, words):
    with pytest.raises(UserError, match=words):
        export_model(tmp_path / "model", [tiny], **{"average": [tiny], **changes})
    assert not (tmp_path / "model").exists()


def test_what_cannot_be_averaged_is_refused(tmp_path, runs, tiny, golden):
    other = make_tiny_model(tmp_path / "other", golden)
    write_json(other / "config.json", {**read_json(other / "config.json"), "rope_theta": 1234.0})
    for average, adapter, words in (
        ([tiny, other], None, "cannot be averaged: their config.json"),
        ([tiny, runs[2]], None, "no backbone to be averaged"),
        ([tiny, tiny], tmp_path / "adapter", "do not go together"),
    ):
        with pytest.raises(UserError, match=words):
            export_model(tmp_path / "model", [tiny], adapter=adapter, average=average)
    assert not (tmp_path / "model").exists()


def test_what_is_missing_is_named(tmp_path, runs):
    written = export_model(tmp_path / "model", runs[:2])
    assert [part.name for part in written.missing] == ["code features", "vae", "decoder", "decoder-turbo"]
    assert all(part.needed_for for part in written.missing)
    assert UniModel.from_pretrained(tmp_path / "model", device="cpu").generate_image("a cat", decoder="none", seed=1)


def test_a_new_export_replaces_the_old_one_whole(tmp_path, runs, tiny):
    export_model(tmp_path / "model", [tiny])
    export_model(tmp_path / "model", runs[:1])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "runs"]


def test_mistakes_are_one_line_and_leave_what_was_there(tmp_path, runs, tiny):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    train_tokenizer(FOREIGN, 900).save(foreign / "tokenizer.json")
    good = export_model(tmp_path / "model", [tiny]).folder
    before = read_json(good / "config.json")
    for out, sources, words in (
        (tmp_path / "notes", [tiny], "not empty"),
        (good, [tmp_path / "notes"], "no part of a model"),
        (good, [tmp_path / "unfinished"], "--checkpoint"),
        (good, [tiny, foreign], "different models"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            export_model(out, sources)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep" and read_json(good / "config.json") == before
