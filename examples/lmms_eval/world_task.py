"""A task for lmms-eval that needs no download: held-out questions about pictures of the small world, written to a directory.

python examples/lmms_eval/world_task.py out/lmms --count 60

DIR/world_questions.yaml is the task, DIR/questions.jsonl and the images its data, DIR/utils.py its judge: the one of
`llada-uni eval --suite understand`, so both should find the same. Your own data make a task in the same way.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from llada_uni.world.evaluation.suites import draw_samples
from llada_uni.world.render import render
from llada_uni.world.scene import Scene

TASK = """\
task: world_questions
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.images
doc_to_text: !function utils.question
doc_to_target: answer
process_results: !function utils.judge
generation_kwargs:
  max_new_tokens: 96
  temperature: 0
  do_sample: false
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--pixels", type=int, default=192, help="side of a picture")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, sample in enumerate(draw_samples("understand", options.count, options.seed, "heldout")):
        turn, files = sample.turns[-1], []
        for place, scene in enumerate(part for part in turn.parts if isinstance(part, Scene)):
            files.append(str(folder / f"{number}-{place}.png"))
            render(scene, options.pixels).save(files[-1])
        about = {"images": files, "question": turn.text, "answer": sample.expect["answer"], "kind": sample.kind}
        lines.append(json.dumps({**about, "expect": json.dumps(sample.expect)}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "world_questions.yaml").write_text(TASK.format(data=folder / "questions.jsonl"), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("world_judge.py"), folder / "utils.py")
    print(f"{len(lines)} questions in {folder}")


if __name__ == "__main__":
    main()
