"""Model files of strangers: nothing in them runs, and their lies are told in one line before they cost anything."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import llada_uni
from llada_uni.errors import UserError
from llada_uni.model import UniModel
from tests.serving.strange_models import PARTS, RunsWhenRead, changes, link, make
from tests.tiny_model import make_tiny_model

# Reading these is right where nothing of them is used; a largest size may also just be possible.
MAY_BE_READ = ("harmless", "largest")
SLOW = ("largest", "huge", "decoder", "header", "tensor")
ONE_OF_EACH = (
    "huge config.json num_hidden_layers",
    "huge vision_config depth",
    "huge vae/config.json layers_per_block",
    "huge decoder-turbo/config.json n_layers",
    "huge turbo_steps",
    "header says it is huge: backbone",
    "tensor beyond the file: vae",
)


def is_slow(name: str) -> bool:
    return any(word in name for word in SLOW) and name not in ONE_OF_EACH


@pytest.fixture(scope="module")
def sound(tmp_path_factory, golden) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("sound") / "model", golden)


def outcomes(sound: Path, names: list[str], where: Path) -> dict[str, str]:
    """Each attack tried in a process of its own with little memory and time (load_stranger.py)."""
    folders = [make(sound, changes()[name], where / str(number), where / "ran") for number, name in enumerate(names)]
    command = [sys.executable, "-m", "tests.serving.load_stranger", str(sound), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    lines = [json.loads(line)["outcome"] for line in done.stdout.splitlines()]
    assert len(lines) == 1 + len(names), done.stderr[-2000:]
    assert lines[0] == "read", "the model is sound before it is changed"
    assert not (where / "ran").exists(), "code of a model directory ran"
    return dict(zip(names, lines[1:], strict=True))


def check(seen: dict[str, str]) -> None:
    for name, outcome in seen.items():
        if outcome == "read" and name.startswith(MAY_BE_READ):
            continue
        assert outcome.startswith("refused: "), f"{name}: {outcome}"
        assert "\n" not in outcome and len(outcome) < 500, f"{name}: {outcome}"
        assert "root:" not in outcome, f"{name} shows what a link leads to: {outcome}"


def test_strange_directories_are_refused_or_harmless(sound, tmp_path):
    names = [name for name in changes() if not is_slow(name)]
    assert len(names) > 30 and set(ONE_OF_EACH) <= set(names)
    check(outcomes(sound, names, tmp_path))


@pytest.mark.slow
def test_strange_directories_all_of_them(sound, tmp_path):
    check(outcomes(sound, [name for name in changes() if is_slow(name)], tmp_path))


def test_the_pickle_would_run(tmp_path):
    """The attack is real: what the tests above call harmless runs its order where somebody unpickles it."""
    import pickle

    pickle.loads(pickle.dumps(RunsWhenRead(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


RUNS_WHAT_IT_READS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def faults(file: Path) -> list[str]:
    """Places of a source file where what is read could run."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [f"imports {name}" for name in names if name.split(".")[0] in RUNS_WHAT_IT_READS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            wrong = name in FORBIDDEN_CALLS or (name == "torch.load" and options.get("weights_only") != "True")
            if wrong or any(options.get(risky, "False") != "False" for risky in ("trust_remote_code", "allow_pickle")):
                found.append(f"calls {name}")
    return [f"{file.name}: {fault}" for fault in found]


def test_no_reader_in_the_package_can_run_code(tmp_path):
    files = list(Path(llada_uni.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    assert [fault for file in files for fault in faults(file)] == []
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle, torch\ntorch.load('a')\nf(trust_remote_code=True)\neval('1')\n")
    assert len(faults(bad)) == 4, "the search finds what it looks for"


@pytest.mark.parametrize("name", ["notes.txt", "vae/config.json", "image_tokenizer/more.json"])
def test_saving_does_not_copy_what_links_lead_to(name, sound, tmp_path):
    """A directory with a link to a private file, loaded and saved again, would publish that file."""
    secret = tmp_path / "secret"
    secret.write_text((sound / "vae/config.json").read_text())

    def change(folder: Path, marker: Path) -> None:
        (folder / name).touch()
        link(name, str(secret))(folder, marker)

    folder = make(sound, change, tmp_path / "model", tmp_path / "ran")
    with pytest.raises(UserError, match="leads out of the model directory"):
        UniModel.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_links_of_a_download_cache_are_its_own(sound, tmp_path):
    """Snapshots of the hub consist of links to files beside them."""
    blobs, snapshot = tmp_path / "repository" / "blobs", tmp_path / "repository" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    make(sound, lambda folder, marker: None, snapshot, tmp_path / "ran")
    for number, file in enumerate(path for part in PARTS for path in (snapshot / part).glob("*.*") if path.is_file()):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    UniModel.from_pretrained(snapshot).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "config.json").read_text() == (sound / "config.json").read_text()
