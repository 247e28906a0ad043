"""From a dataset as people have it to a model that does every task: import, extraction, every stage of recipes/photos."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llada_uni.data.extract import Extraction, extract
from llada_uni.data.importers.kinds import KINDS
from llada_uni.data.importers.run import ImportOptions, import_data
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import open_source
from llada_uni.data.vocabulary import tokenizer_of_records
from llada_uni.evaluation.records import RecordSuite
from llada_uni.evaluation.run import run_suites
from llada_uni.model import UniModel
from llada_uni.training.export import export_model
from llada_uni.training.recipes.recipe import read_recipe, train
from scripts.photos_edits import write_edits
from tests.data.importers.helpers import put, tar_of
from tests.tiny_model import make_tiny_model
from tests.training.helpers.runs import rows

ROOT = Path(__file__).parents[2]
STEPS = 20
CLASSES = ("owl", "polar_bear")


def photo(number: int) -> bytes:
    """32 x 32 pixels: noise around a color of its class."""
    rng = np.random.default_rng(number)
    pixels = rng.normal((60, 120, 200) if number % 2 else (200, 90, 40), 30, (32, 32, 3)).clip(0, 255)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_folder(out: Path, count: int = 6) -> Path:
    for number in range(count):
        put(out / CLASSES[number % 2] / f"{number}.png", photo(number))
    return out


def write_coco(out: Path) -> Path:
    for number in range(4):
        put(out / "train2017" / f"{number}.png", photo(number))
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(4)]
    said = [{"image_id": number, "id": number, "caption": f"a photo of number {number}"} for number in range(4)]
    put(out / "annotations" / "captions_train2017.json", json.dumps({"images": images, "annotations": said}))
    return out


def write_laion(out: Path) -> Path:
    members = [
        member
        for number in range(4)
        for member in ((f"{number}.png", photo(number)), (f"{number}.txt", b"an owl"), (f"{number}.json", b'{"width": 32}'))
    ]
    tar_of(out / "00000.tar", members)
    return out


def write_llava(out: Path) -> Path:
    put(out / "owl.png", photo(0))
    turns = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "an owl"}]
    talks = [{"id": str(number), "image": "owl.png", "conversations": turns} for number in range(4)]
    return put(out / "talk.json", json.dumps(talks))


def write_hf(out: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": photo(number), "path": None} for number in range(4)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    out.mkdir()
    datasets.Dataset.from_dict({"img": images, "label": [0, 1, 0, 1]}, features).to_parquet(str(out / "train.parquet"))
    return out


def write_csv(out: Path) -> Path:
    put(out / "owl.png", photo(0))
    with open(out / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *(("owl.png", f"an owl, number {number}") for number in range(4))])
    return out / "table.csv"


WRITERS = {
    "folder": write_folder,
    "coco": write_coco,
    "laion": write_laion,
    "llava": write_llava,
    "hf": write_hf,
    "csv": write_csv,
}


def test_there_is_a_dataset_of_every_kind():
    assert WRITERS.keys() == KINDS.keys()


@pytest.fixture(scope="module")
def tiny(golden, tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_imported_and_extracted_and_the_backbone_learns_from_it(kind, tmp_path, tiny):
    source = WRITERS[kind](tmp_path / "in")
    import_data(kind, str(source), tmp_path / "records")
    manifest = extract(Extraction(str(tmp_path / "records"), str(tmp_path / "tokens"), str(tiny), batch=4))
    assert manifest is not None and sum(shard["records"] for shard in manifest["shards"]) >= 4
    changes = [f"out={tmp_path / 'run'}", f"options.init={tiny}", f"options.data={{{tmp_path / 'tokens'}: 1.0}}"]
    changes += ["options.tasks=null", "options.heldout=''", "options.samples=2", "options.length=256"]
    train(read_recipe(ROOT / "recipes/photos/s1.yaml", [*changes, *loop(evaluate=0)]))
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row][-1] == STEPS


def loop(evaluate: int = 10) -> list[str]:
    quick = ["loop.warmup=2", "loop.log_every=10", "loop.tensorboard=false", "loop.compile=false"]
    return [f"loop.steps={STEPS}", f"loop.evaluate_every={evaluate}", *quick]


SMALL = "options.vision={hidden_size: 32, intermediate_size: 64, num_heads: 2, depth: 1, patch_size: 4, image_size: 32}"
FEW = ["options.pictures.count=4", "options.evaluate_pictures=4"]
CODES = 32
DECODER = [
    f"options.sizes={{preset: world, codebook: {CODES}, transformer: "
    "{all_patch_size: [1], dim: 64, n_heads: 1, n_kv_heads: 1, n_layers: 2}}",
    "options.batch=1",
    *("options.latents.count=8", "options.latents.shard=4", "options.latents.held_out=2"),
]
BACKBONE = ["options.samples=2", "options.length=256"]
STAGES = {
    "siglip": [SMALL, *FEW, "options.whole_from=10", "options.text_encoder={hidden_size: 32, intermediate_size: 64, "
               "num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16}"],
    "quantizer": [SMALL, *FEW, f"options.book={{num_embeddings: {CODES}, embed_dim: 16}}", "options.features_first=5"],
    "vae": [*FEW, "options.sizes={channels: [8, 16, 16], layers: 1, latent: 8, groups: 4}", "options.whole_from=10"],
    **{f"decoder{number}": [*DECODER, "options.evaluate=2"] for number in (1, 2, 3, 4)},
    "distill": DECODER,
    "s0": [*BACKBONE, "options.sizes={preset: world, num_hidden_layers: 1, num_experts: 4}"],
    "s1": BACKBONE,
    "s2": BACKBONE,
}  # fmt: skip


@pytest.mark.slow  # 40 s
def test_every_stage_of_the_photo_recipes_learns_and_the_model_does_every_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the recipes say runs/photos/...
    runs = Path("runs/photos")
    photos = write_folder(tmp_path / "photos", 24)
    for name, templates in (("tokenizer-records", "tokenizer_templates.yaml"), ("records", "templates.yaml")):
        wordings = ImportOptions().wordings.from_file(ROOT / "recipes/photos" / templates)
        import_data("folder", str(photos), runs / name, ImportOptions(wordings=wordings, splits={"train": 0.7, "held": 0.3}))
    for part in ("train", "held"):
        write_edits(runs / "records" / part)
    tokenizer_of_records(open_source(runs / "records/train"), 640, [], BadRecords()).save(runs / "tokenizer.json")
    for name, changes in STAGES.items():
        if name == "s0":
            for part, tokens in (("train", "tokens"), ("held", "tokens-held")):
                records, out = str(runs / "records" / part), str(runs / tokens)
                extract(Extraction(records, out, str(runs / "quantizer/model"), str(runs / "tokenizer.json"), batch=8))
        train(read_recipe(ROOT / "recipes/photos" / f"{name}.yaml", [*changes, *loop()]))
        assert [row["step"] for row in rows(runs / name) if "loss" in row][-1] == STEPS, name
    written = export_model(Path("model"), [runs / name for name in ("quantizer", "vae", "decoder4", "distill", "s2")])
    assert not written.missing

    model = UniModel.from_pretrained("model", device="cpu")
    drawn = model.generate_image("a photo of an owl", seed=1)
    assert drawn.image.size == (64, 64)
    assert model.edit_image(drawn.image, "turn it into a polar bear", seed=1).image.size == (64, 64)
    assert isinstance(model.understand(drawn.image, "what is in the image?", seed=1).text, str)
    suite = RecordSuite(open_source(f"folder:{write_folder(tmp_path / 'unseen', 2)}"), "answer")
    report = run_suites(model, [suite], limit=None)
    assert report["suites"]["records"]["n"] == 4  # a caption and a question about each image
