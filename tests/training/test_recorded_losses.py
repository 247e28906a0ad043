"""The smoke recipes give the losses that were recorded before stages drew their batches ahead of time, step for step.

RECORDED was made by the code before that change (commit b0fbadd), at the sizes of the smoke recipes with the changes below.
`python -m tests.training.test_recorded_losses` prints the table of the code as it is.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from llada_uni.training.recipes.recipe import read_recipe, train
from tests.training.tiny_decoder import SIZES, make_tiny_decoder
from tests.training.token_folder import make_token_folder

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "parity" / "golden"
IMAGES = ["options.pictures.count=8", "options.text.pictures=200"]
LATENTS = [f"options.latents.{change}" for change in ("folder=latents", "tokenizer=tiny", "vae=tiny", "side=32")] + [
    f"options.latents.{change}" for change in ("count=14", "shard=6", "held_out=4")
]
FLOW = [*LATENTS, f"options.sizes.transformer={json.dumps(SIZES.transformer)}", "options.batch=3"]
TOKENS = ["options.data={tokens: 1.0}", "options.samples=6", "options.masking.unconditional=0", "options.heldout=null"]
CASES = {
    "siglip": IMAGES,
    "quantizer": [*IMAGES, "options.init=''", "options.features_first=2"],
    "vae": ["options.pictures.count=2", "options.whole_from=3"],
    "s0": TOKENS,
    "s2": [*TOKENS, "options.init=null", "options.sizes=smoke", "loop.micro_batches=2"],
    "decoder1": FLOW,
    "distill": [*FLOW, "options.base=tiny"],
}
RECORDED = {
    "siglip": [10.70201, 6.219166, 3.477827, 3.35218],
    "quantizer": [6.539531, 6.262551, 5.803192, 5.636739],
    "vae": [1.072784, 0.4772917, 0.4667961, 0.3991392],
    "s0": [6.227141, 4.974892, 5.828849, 3.289026],
    "s2": [24.431, 23.41173, 19.75722, 18.90002],
    "decoder1": [1.488108, 1.481277, 1.368509, 1.424855],
    "distill": [1.481697, 2.873474, 1.827059, 3.138906],
}


def losses(name: str, folder: Path) -> list[float]:
    """The losses of the first four steps of a smoke recipe; `folder`: where the run and its inputs are made."""
    make_token_folder(folder / "tokens")
    if "options.latents.vae=tiny" in CASES[name]:
        make_tiny_decoder(folder / "tiny", GOLDEN)
    loop = ["loop.steps=4", "loop.warmup=2", "loop.log_every=1", "loop.evaluate_every=0", "loop.tensorboard=false"]
    changes = [change.replace("tiny", str(folder / "tiny")).replace("=latents", f"={folder}/latents") for change in CASES[name]]
    changes = [change.replace("{tokens:", f"{{{folder}/tokens:") for change in changes]
    train(read_recipe(ROOT / "recipes" / "smoke" / f"{name}.yaml", [*loop, *changes, f"out={folder}/run"]))
    return [json.loads(line)["loss"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_recorded(name, tmp_path):
    assert losses(name, tmp_path) == pytest.approx(RECORDED[name], rel=1e-4)


if __name__ == "__main__":
    for case in CASES:
        with tempfile.TemporaryDirectory() as work:
            print(f'    "{case}": {losses(case, Path(work))},')
