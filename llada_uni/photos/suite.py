"""The suite `photos`: class-labeled photographs read, drawn, edited and decoded again, judged on pixels (judge.py).

Parts: read ("what is in the image?" from codes), draw (held-out wordings; some also by the base decoder in 50 steps), edit (to
another class), reconstruct (test images through codes). Over all answers together (`facts`): a linear probe on the image
tokenizer's continuous features, the judge's own accuracy, Fréchet distances, and how near drawn images come to training
images. The photographs are where the variable PHOTOS says; the judge is PHOTOS_JUDGE, or judge/ in the model directory.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llada_uni.data.importers.wordings import Wordings, with_derived
from llada_uni.errors import UserError
from llada_uni.evaluation.answers import picture_of, text_of
from llada_uni.evaluation.suite import Calls, Judged, Plan, Question, with_changes
from llada_uni.files.shipped import shipped
from llada_uni.image.batched import batch_attention, batched_features
from llada_uni.photos.images import Photos, parted, photos_folder, read_photos, shrunk, thumbnail, to_pixels
from llada_uni.photos.judge import Judge, judged, load_judge
from llada_uni.photos.measures import copying, frechet, linear_probe

QUESTION = "what is in the image?"
EDIT = "turn it into {a_class}"
JUDGE = "PHOTOS_JUDGE"
CALLS: Calls = {"understand": {}, "generate": {}, "edit": {}, "decode": {"decoder": "turbo"}, "base": {"decoder": "base"}}
BASE_EACH = 3  # of every third round through the classes the drawings are decoded by the base decoder as well
PROBED = 10_000  # training images that the linear probe learns from


class PhotosSuite:
    """As `evaluation.suite.Suite`; limit: questions of each part, at most as many as there are test images."""

    splits: tuple[str, ...] = ()
    head: str | None = None
    by_name_only = True  # not among "all": it needs photographs that the program does not bring
    meaning = "mean of reading, drawing, editing and reconstructing photographs, as the judge sees them"

    def __init__(self, name: str) -> None:
        self.name, self._folder = name, photos_folder()
        self._model: Any = None
        self._seen: dict[str, list[np.ndarray]] = {"draw": [], "reconstruct": []}

    # What is asked

    @cached_property
    def tests(self) -> Photos:
        """The test images in a fixed random order, so that the first ones are of every class."""
        photos = read_photos(self._folder, "test")
        order = np.random.default_rng(0).permutation(len(photos.images))
        return photos.where(order)

    @cached_property
    def training(self) -> Photos:
        return parted(read_photos(self._folder, "train"))["train"]

    @cached_property
    def names(self) -> list[str]:
        """The classes as words, in the order of the labels."""
        return [name.replace("_", " ") for name in self.tests.classes]

    @cached_property
    def wordings(self) -> list[str]:
        """Templates that no training has seen."""
        path = shipped("recipes") / "photos" / "heldout_templates.yaml"
        return [wording.ask for wording in Wordings.from_file(path).by_task["t2i"]]

    def each(self, plan: Plan) -> int:
        """Questions of a part."""
        return min(plan.limit or len(self.tests.images), len(self.tests.images))

    def total(self, plan: Plan) -> int:
        return 4 * self.each(plan)

    def calls(self, plan: Plan) -> Calls:
        return with_changes(CALLS, plan.calls)

    def questions(self, plan: Plan) -> Iterator[Question]:
        names, calls = self.names, self.calls(plan)
        for i in range(self.each(plan)):
            seed, key = plan.seed + i, names[self.tests.labels[i]]
            yield Question("read", key, QUESTION, partial(self._read, i, key, seed, calls))
            wanted = names[i % len(names)]
            prompt = filled(self.wordings[i // len(names) % len(self.wordings)], wanted)
            yield Question("draw", wanted, prompt, partial(self._draw, i, prompt, wanted, seed, calls))
            other = random.Random(f"{plan.seed}/{i}").choice([name for name in names if name != key])
            yield Question("edit", other, filled(EDIT, other), partial(self._edit, i, other, seed, calls))
            yield Question("reconstruct", key, "codes of the image, decoded", partial(self._reconstruct, i, key, seed, calls))

    def _image(self, i: int) -> Image.Image:
        return Image.fromarray(self.tests.images[i])

    def _read(self, i: int, wanted: str, seed: int, calls: Calls, model: Any) -> Judged:
        said = text_of(model.understand(self._image(i), QUESTION, seed=seed, **calls["understand"]))
        return Judged(QUESTION, {"right": float(said.strip() == wanted)}, wanted, said, [("image", self._image(i))])

    def _draw(self, i: int, prompt: str, wanted: str, seed: int, calls: Calls, model: Any) -> Judged:
        result = model.generate_image(prompt, seed=seed, **calls["decode"], **calls["generate"])
        drawn = picture_of(result)
        self._seen["draw"].append(shrunk(drawn))
        got = self._class(model, drawn)
        scores, shown = {"right": float(got == wanted)}, [("drawn", drawn)]
        if i // len(self.names) % BASE_EACH == 0:
            base = picture_of(model.decode_codes(result.codes, seed=seed, **calls["base"]))
            scores |= {"base": float(self._class(model, base) == wanted), "turbo": scores["right"]}
            shown.append(("base decoder", base))
        return Judged(prompt, scores, wanted, got, shown)

    def _edit(self, i: int, wanted: str, seed: int, calls: Calls, model: Any) -> Judged:
        prompt, before = filled(EDIT, wanted), self._image(i)
        after = picture_of(model.edit_image(before, prompt, seed=seed, **calls["decode"], **calls["edit"]))
        got, stranger = self._class(model, after), self._image((i + 1) % len(self.tests.images))
        # "layout": nearer to its own source than to a stranger's; 0.5 by chance.
        layout = float(_apart(after, before) < _apart(after, stranger))
        scores = {"right": float(got == wanted), "layout": layout}
        return Judged(prompt, scores, wanted, got, [("before", before), ("after", after)])

    def _reconstruct(self, i: int, wanted: str, seed: int, calls: Calls, model: Any) -> Judged:
        decoded = picture_of(model.decode_codes(model.encode_image(self._image(i)), seed=seed, **calls["decode"]))
        self._seen["reconstruct"].append(shrunk(decoded))
        got = self._class(model, decoded)
        shown = [("image", self._image(i)), ("decoded", decoded)]
        return Judged("decoded", {"right": float(got == wanted)}, wanted, got, shown)

    # How it is judged

    def _judge(self, model: Any) -> tuple[Judge, tuple[str, ...]]:
        if self._model is not model:
            place = os.environ.get(JUDGE) or Path(model.folder) / "judge"
            if not (Path(place) / "judge.json").is_file():
                raise UserError(f"there is no judge in {place}; {JUDGE}=DIR says where one is (llada_uni/photos/judge.py)")
            self._model, self._judge_of = model, load_judge(Path(place))
        return self._judge_of

    def _class(self, model: Any, image: Image.Image) -> str:
        judge, classes = self._judge(model)
        return classes[judged(judge, shrunk(image)[None])[0][0]].replace("_", " ")

    def facts(self, answers: Sequence[Judged]) -> dict[str, Any]:
        if self._model is None:
            return {}
        judge, _ = self._judge(self._model)
        count = min(len(self._seen["draw"]), len(self._seen["reconstruct"]))
        tests, training = self.tests.images, self.training.images
        of_tests, of_training = judged(judge, tests), judged(judge, training)
        drawn, decoded = (judged(judge, np.stack(self._seen[part][:count]))[1] for part in ("draw", "reconstruct"))
        halves = np.random.default_rng(0).permutation(len(training))[: 2 * count].reshape(2, -1)
        return {
            "judge_accuracy": float((of_tests[0] == self.tests.labels).mean()),
            "linear_probe": self._probe(),
            "frechet": {
                "images": count,
                "drawn_to_test": frechet(drawn, of_tests[1][:count]),
                "reconstructed_to_test": frechet(decoded, of_tests[1][:count]),
                "training_to_training": frechet(of_training[1][halves[0]], of_training[1][halves[1]]),
            },
            "nearest_training_image": {
                "features": copying(drawn, of_tests[1][:count], of_training[1]),
                "pixels": copying(np.stack(self._seen["draw"]), tests[:count], training),
            },
        }

    def _probe(self) -> float:
        """Accuracy of a linear probe on mean continuous features, learned from training images."""
        vision = batch_attention(self._model.parts.image_tokenizer.vision)
        some = slice(None, None, max(1, len(self.training.images) // PROBED))

        @torch.inference_mode()
        def features(images: np.ndarray) -> np.ndarray:
            parts = [images[start : start + 250] for start in range(0, len(images), 250)]
            return np.concatenate([batched_features(vision, to_pixels(part) * 2 - 1).mean(1).float().numpy() for part in parts])

        known, asked = features(self.training.images[some]), features(self.tests.images)
        return linear_probe(known, self.training.labels[some], asked, self.tests.labels)


def filled(template: str, name: str) -> str:
    """A template with the class and its article."""
    return template.format(a_class=with_derived({"class": name})["a_class"][0])


def _apart(one: Image.Image, other: Image.Image) -> float:
    """Distance of two images' mean colors on a 4 x 4 grid."""
    return float(((thumbnail(one) - thumbnail(other)) ** 2).sum())
