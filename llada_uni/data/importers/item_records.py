"""From an item of a dataset to its conversation records, by templates; the same ones whether they are written or read in place.

    ItemRecords(Wordings.built_in(("en",))).of(item, item.images[0].read)

In a record of these, images are called by their number in the item: "0", "1", ...
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from llada_uni.data.importers.items import Item
from llada_uni.data.importers.measures import MEASURES
from llada_uni.data.importers.wordings import Wordings, with_derived
from llada_uni.errors import UserError
from llada_uni.image.reader import open_image


class ItemRecords:
    """Makes records. measured: fields of the templates that are measured of the image itself, which is opened for them."""

    def __init__(self, wordings: Wordings, seed: int = 0) -> None:
        self.wordings, self.seed = wordings, seed
        self.measured = sorted(wordings.fields & MEASURES.keys())

    def of(self, item: Item, first_image: Callable[[], bytes]) -> list[dict[str, Any]]:
        """The records of an item as JSON objects; first_image: gives the file of its first image, when a template measures it.

        A finished conversation is one record, without templates. UserError: no image or several for templates, or none fits.
        """
        if item.messages is not None:
            learn = {"learn": "all"} if item.task == "dialogue" else {}
            return [{"id": item.key, "task": item.task, **learn, "messages": list(item.messages)}]
        if len(item.images) != 1:
            raise UserError(f"has {len(item.images)} images; a template is about one")
        fields = with_derived(item.fields)
        if self.measured:
            opened = open_image(first_image())
            fields |= {name: (MEASURES[name](opened),) for name in self.measured}
        made = self.wordings.records(fields, random.Random(f"{self.seed}/{item.key}"))
        if not made:
            known = ", ".join(sorted(fields)) or "no field at all"
            raise UserError(f"no template fits: the item has {known} and the templates need other fields")
        return [
            {"id": f"{item.key}#{number}", "task": task, "messages": _turns(task, ask, answer)}
            for number, (task, ask, answer) in enumerate(made)
        ]


def _turns(task: str, ask: str, answer: str) -> list[dict[str, Any]]:
    image = {"type": "image", "image": "0"}
    if task == "t2i":
        return [{"role": "user", "content": ask}, {"role": "assistant", "content": [image]}]
    return [
        {"role": "user", "content": [image, {"type": "text", "text": ask}]},
        {"role": "assistant", "content": answer},
    ]
