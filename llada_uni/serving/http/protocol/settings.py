"""Settings of generation as HTTP has them: fields of bodies, and the table that the studio shows. All of it is derived.

`takes` gives a body every optional field of requests (`llada_uni/requests.py`): names, types, bounds and help are those of
`generation/params.py`. `SettingsBody.given` hands the values on to a request. `table` describes the settings of a request
for people: a title, help, bounds and the directory's own default each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, TypeVar, get_args

from pydantic import BaseModel, Field, create_model

from llada_uni.checked import Checked, schema_of
from llada_uni.generation import params
from llada_uni.requests import Request
from llada_uni.serving.http.protocol.common import Body, read_size

# A size is one field, as OpenAI has it; modalities are chat's own, grammars stand in `response_format` and `choice`.
IN_OTHER_FIELDS = ("height", "width", "modalities", "json_schema", "choices")
OF_OTHER_TYPES = {"decoder": params.Decoder}  # answers hold images, so codes alone are no choice
# The studio has fields of its own for them, or none.
NOT_IN_THE_TABLE = ("seed", "stop", "thinking", "regex", "reasoning_regex", "judge_question")
_WORDS_OF_SIZE = ("height", "width", "the image asked for")
_EVERYDAY_WORDS = {"model", "n", "user", "stream", "input", "image"}  # names of fields that messages use as words
B = TypeVar("B", bound="SettingsBody")


class SettingsBody(Body):
    """A body with settings of generation. `renamed`: earlier names of fields -> what to use instead. `main`: the field that
    says what is asked for, at fault where no other is.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    main: ClassVar[str] = "prompt"

    if TYPE_CHECKING:  # of those that `takes` adds, what routes read themselves
        seed: int | None
        regex: str | None
        max_tokens: int | None
        max_frames: int | None
        temperature: float | None
        top_p: float | None

    def given(self, kind: type[Request]) -> dict[str, Any]:
        """The values that are not null, by name, of the optional fields of a kind of request."""
        values = {name: getattr(self, name, None) for name in optional_fields(kind)}
        values["height"], values["width"] = read_size(getattr(self, "size", None))
        return {name: value for name, value in values.items() if value is not None and name in kind.model_fields}


def field_at_fault(message: str, body: SettingsBody) -> str:
    """The field of a body that the words of a refusal are about: one that was given and that they name, else the main one."""
    if any(re.search(rf"\b{word}\b", message) for word in _WORDS_OF_SIZE) and "size" in type(body).model_fields:
        return "size"
    given = sorted(body.model_fields_set - _EVERYDAY_WORDS, key=len, reverse=True)
    return next((name for name in given if re.search(rf"\b{name}\b", message)), body.main)


def optional_fields(kind: type[Request]) -> Iterator[str]:
    """Names of what may be left out of a request, size and modalities apart."""
    return (name for name, field in kind.model_fields.items() if not field.is_required() and name not in IN_OTHER_FIELDS)


def takes(*kinds: type[Request]) -> Callable[[type[B]], type[B]]:
    """Adds the optional fields of requests to a body, each with null for "not given"; fields that it has stay."""

    def add(body: type[B]) -> type[B]:
        fields: dict[str, Any] = {}
        for kind in kinds:
            for name in optional_fields(kind):
                if name not in body.model_fields:
                    field = kind.model_fields[name]
                    taken = OF_OTHER_TYPES.get(name, field.annotation)
                    fields[name] = (Optional[taken], Field(None, title=field.title, description=field.description))  # noqa: UP045
        made = create_model(body.__name__, __base__=body, __module__=body.__module__, __doc__=body.__doc__, **fields)
        made.renamed = {name: words for kind in kinds for name, words in kind.renamed.items()}
        return made

    return add


# --- for people ---


class Setting(BaseModel):
    """A field of a form. name: in a request; "sprint.r" is the field r of the object sprint. title, help: words for people;
    panel: the heading it stands under. minimum, maximum: included; step: of a number field. default: the model directory's
    own, or null where the setting is off, or depends on others.
    """

    name: str
    title: str
    help: str
    panel: str
    kind: Literal["integer", "number", "boolean", "choice"]
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    choices: list[str] = []
    default: bool | int | float | str | None = None


def table(
    kind: type[Request],
    defaults: Mapping[str, Any],
    ceilings: Mapping[str, float] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> list[Setting]:
    """The settings of a kind of request that one value each can say, heading by heading.

    defaults: by name, of the model directory. ceilings, choices: by name, what this server allows of what there is.
    """
    found = []
    for name in kind.settings():
        if name in IN_OTHER_FIELDS or name in NOT_IN_THE_TABLE:
            continue
        panel, default, group = kind.panels[name], defaults.get(name), _group(kind.model_fields[name].annotation)
        if group is None:
            found.append(_setting(kind, name, name, panel, default))
            continue
        title = _title(kind, name)
        for inner in group.model_fields:
            setting = _setting(group, inner, f"{name}.{inner}", panel, getattr(default, inner, None))
            found.append(None if setting is None else setting.model_copy(update={"title": f"{title}: {setting.title.lower()}"}))
    known = [setting for setting in found if setting is not None]
    return [_allowed_here(setting, ceilings or {}, {"decoder": params.DECODERS, **(choices or {})}) for setting in known]


def _setting(kind: type[Checked], name: str, path: str, panel: str, default: Any) -> Setting | None:
    """One setting; None where no single value can say it."""
    schema = schema_of(kind, name)
    about = {"name": path, "title": _title(kind, name), "help": schema.get("description", ""), "panel": panel}
    about["default"] = default
    kinds = ("integer", "number", "boolean")
    if "enum" in schema:
        return Setting(**about, kind="choice", choices=list(schema["enum"]))
    if schema.get("type") not in kinds:
        return None
    if schema["type"] == "boolean":
        return Setting(**about, kind="boolean")
    low, high = schema.get("minimum"), schema.get("maximum")
    step = 1 if schema["type"] == "integer" else 0.01 if high is not None and high <= 1 else 0.1
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    return Setting(**about, kind=schema["type"], minimum=low, maximum=high, step=step)


def _allowed_here(setting: Setting, ceilings: Mapping[str, float], choices: Mapping[str, Sequence[str]]) -> Setting:
    changes: dict[str, Any] = {}
    if setting.name in ceilings and setting.maximum is not None:
        changes["maximum"] = min(setting.maximum, ceilings[setting.name])
    if setting.name in choices:
        changes["choices"] = [choice for choice in setting.choices if choice in choices[setting.name]]
    return setting.model_copy(update=changes)


def _title(kind: type[Checked], name: str) -> str:
    return kind.model_fields[name].title or name.replace("_", " ").capitalize()


def _group(annotation: Any) -> type[Checked] | None:
    """The record that an optional field holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, Checked):
        return annotation
    return next(filter(None, map(_group, get_args(annotation))), None)
