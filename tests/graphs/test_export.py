"""`llada-uni export-graph`: files that onnxruntime and torch run as the usual path does, and a drawing without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.cli import main
from llada_uni.errors import UserError
from llada_uni.graphs import export
from llada_uni.graphs.export import TOLERANCE, Wanted, largest_difference
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from tests.tiny_model import make_tiny_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_only.py"
ORT = "onnxruntime"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.fixture(scope="module")
def graphs(tiny, tmp_path_factory):
    pytest.importorskip(ORT)
    out = tmp_path_factory.mktemp("graphs") / "onnx"
    assert main(["export-graph", str(out), "-m", str(tiny), "--capacity", "96", "--prompt", "a cat"]) == 0
    return out


def test_onnx_equals_the_usual_path(graphs):
    notes = json.loads((graphs / "graphs.json").read_text())
    assert set(notes["largest_difference"]) == {"block", "condition", "evaluation", "pixels"}
    assert all(0 < value < TOLERANCE for value in notes["largest_difference"].values())
    assert {path.name for path in graphs.iterdir()} == {*(f"{n}.onnx" for n in notes["largest_difference"]), "graphs.json"}


def test_a_drawing_without_torch_is_the_drawing_with_it(graphs, tiny, tmp_path):
    program = (
        "import runpy, sys; sys.argv[0] = sys.argv[1]; del sys.argv[1]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "assert not {'torch', 'llada_uni'} & set(sys.modules)"
    )
    words = [EXAMPLE, graphs, "--out", tmp_path / "drawn.png", "--steps", "4", "--threshold", "0.9"]
    done = subprocess.run([sys.executable, "-I", "-c", program, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    uni = UniModel.from_pretrained(tiny, "cpu")
    drawn = uni.generate_image("a cat", temperature=0.0, seed=0, decoder="none")
    assert json.loads(done.stdout.splitlines()[-2]) == list(drawn.codes.codes)
    assert Image.open(tmp_path / "drawn.png").size == (32, 32)


def test_the_decoding_of_the_example_is_ours(graphs, tiny, monkeypatch):
    """With the same noise, to a level."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import onnx_only

    noise = torch.randn(3, 1, *json.loads((graphs / "graphs.json").read_text())["decoder"]["latents"][1:])
    drawn = iter(noise.double().numpy())

    class Drawn:
        def standard_normal(self, shape):
            return next(drawn)

    monkeypatch.setattr(onnx_only.np.random, "default_rng", lambda seed: Drawn())
    codes = ImageCodes(tuple(range(16)), 4, 4)
    decoder = UniModel.from_pretrained(tiny, "cpu").parts.decoder
    ours = decoder.pixels(decoder.latents(codes, "turbo", 2, noise=noise[0], renoise=noise[1:]))
    theirs = np.asarray(onnx_only.decode(onnx_only.Graphs(graphs), list(codes.codes), 0))
    assert np.abs((ours[0] * 255).permute(1, 2, 0).numpy() - theirs).max() < 2


def test_torch_export_of_the_base_decoder(tiny, tmp_path, capsys):
    """Two rows for guidance; no extra is needed."""
    words = ["--which", "decoder", "--format", "pt2", "--decoder", "base", "--height", "64", "--width", "32", "--json"]
    assert main(["export-graph", str(tmp_path / "pt2"), "-m", str(tiny), *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["equal"] and set(said["largest_difference"]) == {"condition", "evaluation", "pixels"}
    notes = json.loads((tmp_path / "pt2" / "graphs.json").read_text())["decoder"]
    assert (notes["rows"], notes["rows_of_codes"], notes["columns_of_codes"], notes["steps"]) == (2, 8, 4, 3)
    found = torch.export.load(tmp_path / "pt2" / "condition.pt2").module()(torch.zeros(1, 32, dtype=torch.int64))
    assert found.shape[0] == 2


WRONG = [
    (["--capacity", "100000"], "the capacity is 100000; allowed: 1 to"),
    (["--height", "33"], "the height must be a multiple of"),
    (["--which", "head"], "unknown graphs 'head'; allowed: block, decoder"),
    (["--format", "tflite"], "unknown format 'tflite'; allowed: onnx, pt2"),
    (["--decoder", "other"], "unknown decoder 'other'; allowed: turbo, base"),
    (["--which", "block", "--prompt", "a cat"], "the ids of a prompt are for drawing"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_mistakes_are_one_line_and_nothing_is_written(tiny, tmp_path, capsys, words, said):
    base = ["--which", "decoder"] if "--height" in words else ["--which", "block"] if "--capacity" in words else []
    assert main(["export-graph", str(tmp_path / "out"), "-m", str(tiny), "--format", "pt2", *base, *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_extra_is_named(monkeypatch):
    found = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == ORT else found(name))
    with pytest.raises(UserError, match=r"pip install 'llada-uni\[onnx\]'"):
        Wanted()
    assert Wanted(format="pt2")


def test_a_graph_that_differs_is_told(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "_write", lambda graph, path: None)
    monkeypatch.setattr(export, "_run", lambda path, graph: tuple(value + 1e-3 for value in graph.expected))
    assert main(["export-graph", str(tmp_path / "out"), "-m", str(tiny), "--which", "decoder", "--format", "pt2"]) == 1
    assert "MORE than 0.0001" in capsys.readouterr().err


def test_differences_are_shares_of_large_values():
    a = torch.tensor([0.0, 100.0])
    assert largest_difference((a + 1e-2,), (a,)) == pytest.approx(1e-4, rel=1e-2)
    assert largest_difference((a / 1000 + 1e-2,), (a / 1000,)) == pytest.approx(1e-2, rel=1e-2)
