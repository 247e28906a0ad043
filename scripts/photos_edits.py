"""Edit records between classes: "turn it into a truck", from an image to one of another class that is laid out alike.

    python -m scripts.photos_edits runs/photos/records/train --seed 0

Photographs come without a before and an after. For every image one other class is drawn, and of that class the image whose
4 x 4 thumbnail is nearest becomes the answer: what stands where, and in which color, stays roughly as it is. Reads the records
that `llada-uni data import folder` wrote (the class is part of their ids) and writes `edits-00000.jsonl` beside them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from llada_uni.data.importers.wordings import with_derived
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file
from llada_uni.photos.images import thumbnail

WORDINGS = (
    "turn it into {a_class}",
    "make it {a_class}",
    "replace the {before} with {a_class}",
    "change the {before} into {a_class}",
    "turn the {before} into {a_class}",
)
FILE = "edits-00000.jsonl"
_AT_ONCE = 2000


def images_of(folder: Path) -> dict[str, str]:
    """Name of each image -> its class, in the order of the records. The class is the folder in the record's id."""
    found: dict[str, str] = {}
    for conversation in conversations(open_source(folder), BadRecords()):
        parts = conversation.id.split("#")[0].split("/")
        if conversation.task == "edit" or len(parts) < 2:
            continue
        for picture in conversation.pictures():
            found.setdefault(picture.name, parts[-2].replace("_", " "))
    if len(set(found.values())) < 2:
        raise UserError(f"{folder} has images of {len(set(found.values()))} classes; edits between classes need two")
    return found


def nearest(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """int64 [Q]: for each of float32 [Q, F] the row of [C, F] at the smallest distance."""
    squares = (candidates**2).sum(1)
    return np.concatenate(
        [
            (squares - 2 * part @ candidates.T).argmin(1)
            for part in (queries[start : start + _AT_ONCE] for start in range(0, len(queries), _AT_ONCE))
        ]
    )


def write_edits(folder: Path, seed: int = 0) -> int:
    """Writes the records; how many. The same for the same records and seed."""
    classes = images_of(folder)
    names = list(classes)
    layouts = np.stack([thumbnail(Image.open(folder / name)) for name in names])
    kinds = sorted(set(classes.values()))
    rng = random.Random(seed)
    wanted = [rng.choice([kind for kind in kinds if kind != classes[name]]) for name in names]
    answers: dict[int, int] = {}
    for kind in kinds:
        members = np.array([i for i, name in enumerate(names) if classes[name] == kind])
        asking = np.array([i for i, one in enumerate(wanted) if one == kind])
        if len(asking):
            answers.update(zip(asking.tolist(), members[nearest(layouts[asking], layouts[members])].tolist(), strict=True))
    with atomic_file(folder / FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for place, name in enumerate(names):
            (article,) = with_derived({"class": wanted[place]})["a_class"]
            text = rng.choice(WORDINGS).format(a_class=article, before=classes[name])
            shown = [{"type": "image", "image": name}, {"type": "text", "text": text}]
            drawn = [{"type": "image", "image": names[answers[place]]}]
            messages = [{"role": "user", "content": shown}, {"role": "assistant", "content": drawn}]
            file.write(json.dumps({"id": f"edit/{name}", "task": "edit", "messages": messages}) + "\n")
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="records that data import made, with images in files (jsonl)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        print(f"{arguments.folder / FILE}  {write_edits(arguments.folder, arguments.seed):,} edits")
    except UserError as error:
        raise SystemExit(f"photos_edits: {error}") from None


if __name__ == "__main__":
    main()
