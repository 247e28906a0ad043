"""Templates that make conversation records of what a dataset says about an image.

    wordings = Wordings.built_in(("en",), {"class"})
    wordings.records({"class": ("cat",), "a_class": ("a cat",)}, random.Random(0))

A template names fields in braces: those of the dataset (`{class}`, `{caption}`, any column), `{a_class}` (with its English
article) and what can be measured of the image (measures.py). A template one of whose fields the item lacks is left out for it.
"""

from __future__ import annotations

import random
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llada_uni.errors import UserError

TASKS = ("t2i", "caption", "understand")
"""Tasks that templates can make: text to image, caption, question."""
Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Wording:
    """ask: what the user says; answer: what the assistant says, "" for the image (t2i)."""

    ask: str
    answer: str = ""

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields it needs. UserError for braces that name none."""
        return _fields_of(self.ask) | _fields_of(self.answer)

    def filled(self, fields: Fields, rng: random.Random) -> tuple[str, str]:
        """Both texts with one value of each field."""
        chosen = {name: rng.choice(fields[name]) for name in sorted(self.fields)}
        return self.ask.format_map(chosen), self.answer.format_map(chosen)


def _fields_of(template: str) -> frozenset[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"the template {template!r} cannot be read ({error})") from None
    names = set()
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise UserError(f"the template {template!r} has the field {{{name}}}; allowed: a name alone, as in {{class}}")
        names.add(name)
    return frozenset(names)


# By language and task; each is used for a dataset that has its fields.
_BUILT_IN: dict[str, dict[str, list[tuple[str, str]]]] = {
    "en": {
        "t2i": [
            ("{caption}", ""),
            ("a photo of {a_class}", ""),
            ("{a_class}", ""),
            ("draw {a_class}", ""),
            ("an image of {a_class}", ""),
        ],
        "caption": [
            ("describe the image", "{caption}"),
            ("what does the image show?", "{caption}"),
            ("describe the image", "a photo of {a_class}"),
        ],
        "understand": [
            ("{question}", "{answer}"),
            ("what is in the image?", "{class}"),
            ("name the object", "{class}"),
        ],
    },
    "de": {
        "t2i": [("{caption}", ""), ("ein Foto: {class}", ""), ("zeichne: {class}", "")],
        "caption": [("beschreibe das Bild", "{caption}"), ("beschreibe das Bild", "ein Foto: {class}")],
        "understand": [("{question}", "{answer}"), ("was ist auf dem Bild?", "{class}")],
    },
    "zh": {
        "t2i": [("{caption}", ""), ("一张{class}的照片", ""), ("画{class}", "")],
        "caption": [("描述这张图片", "{caption}"), ("描述这张图片", "一张{class}的照片")],
        "understand": [("{question}", "{answer}"), ("图片里有什么？", "{class}")],
    },
}
LANGUAGES = tuple(_BUILT_IN)


@dataclass(frozen=True)
class Wordings:
    """by_task: the templates of each task; each: how many records of a task an image gets at most."""

    by_task: Mapping[str, tuple[Wording, ...]]
    each: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task, wordings in self.by_task.items():
            if task not in TASKS:
                raise UserError(f"templates are given for the task {task!r}; allowed: {', '.join(TASKS)}")
            for wording in wordings:
                if bool(wording.answer) == (task == "t2i"):
                    rule = "only what the user asks (the image is the answer)" if task == "t2i" else "ask and answer"
                    raise UserError(f"a template of {task} has {rule}; found {wording.ask!r} and {wording.answer!r}")
        for task, count in self.each.items():
            if task not in TASKS or not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise UserError(f"each: {task}: {count!r}; allowed: a task of {', '.join(TASKS)} and a number from 0")

    @classmethod
    def built_in(cls, languages: Sequence[str] = ("en",)) -> Wordings:
        """The templates above in these languages. UserError for another language."""
        for language in languages:
            if language not in _BUILT_IN:
                raise UserError(f"there are no built-in templates in {language!r}; allowed: {', '.join(LANGUAGES)}, or a file")
        return cls({t: tuple(Wording(*w) for name in languages for w in _BUILT_IN[name].get(t, ())) for t in TASKS})

    @classmethod
    def from_file(cls, path: str | Path) -> Wordings:
        """Templates of a YAML file (docs/data.md). UserError when it cannot be read or holds something else."""
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot read the templates of {path} ({' '.join(str(error).split())[:160]})") from None
        allowed = (*TASKS, "each")
        if not isinstance(data, dict) or not set(data) <= set(allowed):
            found = ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise UserError(f"{path} must hold templates under {', '.join(allowed)}; found {found}")
        each = data.pop("each", None) or {}
        if not isinstance(each, dict):
            raise UserError(f"{path}: each is {each!r}; allowed: a number for each task, as in {{t2i: 2}}")
        return cls({task: tuple(_wording(one, task, path) for one in _list(data[task], task, path)) for task in data}, each)

    @property
    def fields(self) -> frozenset[str]:
        """Names of all fields that some template needs."""
        return frozenset().union(*(wording.fields for wordings in self.by_task.values() for wording in wordings))

    def records(self, fields: Fields, rng: random.Random) -> list[tuple[str, str, str]]:
        """(task, ask, answer) of the records of an item that has these fields, different ones of each task."""
        out = []
        for task, wordings in self.by_task.items():
            usable = [wording for wording in wordings if wording.fields <= fields.keys()]
            if not any(wording.fields for wording in usable):
                continue  # a template without fields says nothing about this image
            count = self.each.get(task, 1)
            chosen = rng.sample(usable, min(count, len(usable)))
            out += [(task, *text) for text in dict.fromkeys(wording.filled(fields, rng) for wording in chosen)]
        return out


def _list(value: Any, task: str, path: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{path}: {task} must be a list of templates")
    return value


def _wording(value: Any, task: str, path: object) -> Wording:
    if isinstance(value, str) and task == "t2i":
        return Wording(value)
    if isinstance(value, dict) and set(value) == {"ask", "answer"} and all(isinstance(text, str) for text in value.values()):
        return Wording(value["ask"], value["answer"])
    form = "a text" if task == "t2i" else "{ask: ..., answer: ...}"
    raise UserError(f"{path}: a template of {task} is {form}, not {value!r}")


def with_derived(fields: Mapping[str, str | Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Every field as a tuple of its values, and `a_class` where there is a class; fields without a value are left out."""
    out = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in fields.items()}
    out = {name: values for name, values in out.items() if values}
    if "class" in out:
        out["a_class"] = tuple(f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}" for name in out["class"])
    return out
