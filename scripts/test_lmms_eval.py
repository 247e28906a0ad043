"""lmms-eval, run for real in an environment of its own: this package's model inside it, and by its own client of the server.

    python scripts/test_lmms_eval.py [--count 60] [--into docs/evaluation.md]

lmms-eval and this package go into build/clients/lmms-eval (without torchvision, which it does not need here), held-out
questions of the small world are written as a task, both ways are run, and `llada-uni eval --suite understand` asks the same.
Exit code 1 where the three do not find the same share of right answers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from server_process import ServerProcess
from test_clients import ENVIRONMENTS, ROOT

PACKAGES = ("lmms-eval==0.7.3", "filelock<4")  # it reaches into filelock's inside, which moved in 4
BEGIN, END = "<!-- lmms-eval: written by scripts/test_lmms_eval.py -->", "<!-- end of lmms-eval -->"
EXAMPLES = ROOT / "examples" / "lmms_eval"
SECONDS = 3600


def run(*command: str | Path, **variables: str) -> None:
    """RuntimeError with the last lines of what it said."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # the task is local
    words = [str(word) for word in command]
    done = subprocess.run(words, env=os.environ | offline | variables, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError("\n".join([" ".join(words), *(done.stdout + done.stderr).splitlines()[-12:]]))


def install(folder: Path) -> Path:
    """The environment's python."""
    uv, python = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)), folder / "bin" / "python"
    if uv is None:
        raise SystemExit("this needs uv: pip install uv")
    if not python.exists():
        run(uv, "venv", "-q", "-p", sys.executable, folder)
    left_out = folder / "left-out.txt"
    left_out.write_text("torchvision; python_version < '3'\n", encoding="utf-8")
    torch = subprocess.run([sys.executable, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    wanted = (*PACKAGES, f"torch=={torch.stdout.strip()}", "-e", f"{ROOT}[serve]")
    links = os.environ.get("PIP_FIND_LINKS")
    more = ["--find-links", links] if links else []
    run(uv, "pip", "install", "-q", "--python", python, "--override", left_out, *more, *wanted)
    return python


def score(results: Path) -> float:
    """The share of right answers in the newest results of lmms-eval."""
    newest = max(results.rglob("*_results.json"), key=lambda path: path.stat().st_mtime)
    found = json.loads(newest.read_text(encoding="utf-8"))["results"]["world_questions"]
    return float(next(value for name, value in found.items() if name.startswith("right") and "stderr" not in name))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="questions")
    parser.add_argument("--model", default=str(ROOT / "models" / "world"))
    parser.add_argument("--into", type=Path, help="a page whose table is written again")
    options = parser.parse_args()
    folder = ENVIRONMENTS / "lmms-eval"
    folder.mkdir(parents=True, exist_ok=True)
    python = install(folder)
    task = folder / "task"
    shutil.rmtree(task, ignore_errors=True)
    run(python, EXAMPLES / "world_task.py", task, "--count", str(options.count))
    about = ("--tasks", "world_questions", "--include_path", task, "--log_samples")
    rows = []

    inside = task / "inside"
    run(python, EXAMPLES / "run.py", "--model", "llada_uni", "--model_args", f"pretrained={options.model}", *about,
        "--output_path", inside)  # fmt: skip
    rows.append(("model `llada_uni` (examples/lmms_eval/run.py)", score(inside)))
    with ServerProcess("world") as server:
        args = f"model_version=world,base_url={server.address}/v1,num_concurrent=8"
        run(python, "-m", "lmms_eval", "--model", "openai", "--model_args", args, *about, "--output_path", task / "server",
            OPENAI_API_KEY="none")  # fmt: skip
    rows.append(("model `openai` against `llada-uni serve`", score(task / "server")))
    report = task / "ours.json"
    run(sys.executable, "-m", "llada_uni", "eval", "--suite", "understand", "--limit", str(options.count), "--split", "heldout",
        "--model", options.model, "--json", report)  # fmt: skip
    kinds = json.loads(report.read_text(encoding="utf-8"))["suites"]["understand"]["classes"].values()
    right = sum(kind["score"] * kind["n"] for kind in kinds) / sum(kind["n"] for kind in kinds)
    rows.append(("`llada-uni eval --suite understand`", right))

    lines = [f"| lmms-eval 0.7.3, task `world_questions`, {options.count} questions | right |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in rows]
    print("\n".join(lines))
    if options.into is not None:
        page = options.into.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        if not rest:
            raise SystemExit(f"{options.into} has no place for the table: {BEGIN}")
        table = "\n".join(lines)
        options.into.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return int(max(value for _, value in rows) - min(value for _, value in rows) > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
