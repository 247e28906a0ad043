"""What can be answered from the codes of a trained image tokenizer, beside what can be answered without quantizing.

    python -m benchmarks.tokenizer_answers runs/world/quantizer [--pictures 1000] [--json FILE]

The run's own small language model answers questions about fresh pictures, half of them with held-out combinations, once from
the codes and once from the continuous vectors before quantization; an answer counts when greedy decoding writes it exactly.
"ours" are the codes, "theirs" the continuous vectors, both as shares of right answers.
Usage: the share of codes that occur at all in these pictures; perplexity: of how often they occur.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import torch

from benchmarks.common import Row, arguments, progress, report, start
from llada_uni.errors import UserError
from llada_uni.evaluation.intervals import wilson
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import FILE, read_recipe
from llada_uni.training.tokenizer.probe_lm import CAPTION_QUESTION
from llada_uni.training.tokenizer.quantizer import QuantizerOptions, QuantizerStage
from llada_uni.world.questions import TEMPLATES_OF, UNDERSTAND_KINDS
from llada_uni.world.wordings import TEMPLATES

BATCH = 50
SPLITS = ("train", "heldout")


@lru_cache(maxsize=1)
def _wordings() -> list[tuple[re.Pattern[str], str]]:
    named = [(kind, TEMPLATES[name]) for kind in UNDERSTAND_KINDS for name in TEMPLATES_OF.get(kind, (kind,))]
    texts = [(text, kind) for kind, wordings in named for text in (*wordings.train, *wordings.heldout)]
    texts.sort(key=lambda pair: -len(re.sub(r"\{\w+\}", "", pair[0])))  # the one with the most words of its own first
    return [(re.compile(_pattern(text)), kind) for text, kind in texts]


def _pattern(template: str) -> str:
    """What a question by a template looks like; {a} stands for a name with its article."""
    return re.sub(r"\\\{\w+\\\}", ".+", re.escape(template).replace(r"\{a\}", "an? .+")) + r"\??"


def kind_of(question: str) -> str:
    """The kind of a question of the world; "other" for questions of other sources."""
    if question == CAPTION_QUESTION:
        return "caption"
    return next((kind for pattern, kind in _wordings() if pattern.fullmatch(question)), "other")


def load_stage(run: str) -> QuantizerStage:
    """The stage of a run of the stage `quantizer`, with the weights of its last checkpoint."""
    recipe = read_recipe(f"{run}/{FILE}", ["options.init=''"])
    if not isinstance(recipe.options, QuantizerOptions):
        raise UserError(f"{run} is a run of the stage {recipe.stage}; only the stage quantizer has a model that answers")
    stage = recipe.options.build(Processes(), recipe.seed)
    stage.load_state_dict(load_full(run))
    return stage.eval()


@torch.no_grad()
def measure(stage: QuantizerStage, pictures: int, split: str, counts: torch.Tensor) -> dict[str, dict[str, list[bool]]]:
    """Right answers by kind, from "codes" and "features", on `pictures` pictures; uses of codes add up in `counts` [K]."""
    rng, right = random.Random(f"answers {split}"), defaultdict(lambda: defaultdict(list))
    for done in range(0, pictures, BATCH):
        images, drawn = stage.batches.draw(rng, min(BATCH, pictures - done), split)
        questions = stage.questions(drawn, rng)
        for source, rows in stage.answered(images, questions).items():
            for asked, row in zip(questions, rows, strict=True):
                for (question, _), is_right in zip(asked, row, strict=True):
                    right[kind_of(question)][source].append(is_right)
        counts += torch.bincount(stage.codes(images).flatten(), minlength=len(counts))
    return right


def rows_of(split: str, right: dict[str, dict[str, list[bool]]]) -> list[Row]:
    """A row for every kind of question, and one for all of them."""
    everything = {source: [r for kind in right.values() for r in kind[source]] for source in ("codes", "features")}
    rows = []
    for kind, answers in [*sorted(right.items()), ("all", everything)]:
        n, codes, features = len(answers["codes"]), sum(answers["codes"]), sum(answers["features"])
        low, high = wilson(codes, n)
        more = {"n": n, "codes_interval": [round(low, 4), round(high, 4)], "gap": round((features - codes) / n, 4)}
        rows.append(Row(f"{split}: {kind}", "continuous vectors", "share right", codes / n, features / n, None, more))
    return rows


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, pictures={"type": int, "default": 1000, "help": "pictures of each split (default 1000)"})
    parser.add_argument("run", help="a run directory of the stage quantizer")
    options = start(parser, given)
    stage = load_stage(options.run)
    counts = torch.zeros(stage.options.book.num_embeddings)
    rows = []
    for split in SPLITS:
        progress(f"questions about pictures of the split {split}")
        rows += rows_of(split, measure(stage, 100 if options.quick else options.pictures, split, counts))
    share = counts / counts.sum()
    perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum()).item()
    rows.append(Row("codes used", "all codes", "codes", int((counts > 0).sum()), len(counts)))
    rows.append(Row("perplexity of the codes", "all codes", "codes", perplexity, len(counts)))
    report(rows, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
