"""What the model can be asked for: one frozen record per task, the same at every door (Python, command line, HTTP, adapters).

    UniModel.from_pretrained().run(Draw(prompt="a cat and a dog", cfg_scale=3.0, seed=1))

A record has the words and images of its task, and every setting that the task uses, from `generation/params.py`; None means
the model directory's own default. `accepts` derives the settings: their names (see `params`), bounds and help are spelled
there and nowhere else. Images are paths, bytes, PIL images or `ImageCodes`; they are opened when the task runs. All errors
are `UserError`: one line with the field, the value given and what is allowed. Nothing here imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, create_model, model_validator

from llada_uni.checked import Checked, is_group
from llada_uni.generation import params, values
from llada_uni.generation.params import Decoding, Held, Seeded, Stopped

OF_WHAT = {"image_": "image codes", "text_": "text", "reasoning_": "reasoning text"}  # prefix -> what is sampled
PANELS = {"image_": "Images", "reasoning_": "Reasoning"}  # prefix -> heading of a second sampling
HEADINGS = ("Drawing", "Sampling", "Grammar", "Images", "Reasoning", "Decoder")  # in the order in which people see them
DECODER_STEPS = next(name for name in Decoding.model_fields if name.endswith("_steps"))
STEPS = {"codes": "image_steps", "text": "text_steps"}  # sampling without a prefix -> its steps, which always have one
R = TypeVar("R", bound="Request")


class Request(Seeded):
    """What every request has. `section`: whose defaults in the directory are its own (`tasks/defaults.py`).

    `paths`: setting -> where it stands in the settings of its task, for those that the directory has defaults of; `panels`:
    every field that may be left out -> the heading it is listed under.
    """

    section: ClassVar[str]
    paths: ClassVar[dict[str, tuple[str, ...]]] = {}
    panels: ClassVar[dict[str, str]] = {}

    if TYPE_CHECKING:  # the settings that `accepts` adds; records are declared with init=False, so that these are taken

        def __init__(self, **values: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, init: bool = True, **options: Any) -> None:
        """init: for type checkers (`typing.dataclass_transform`), nothing here."""
        super().__init_subclass__(**options)

    def changes(self) -> dict[str, Any]:
        """The settings that are given, nested as in the settings of the task."""
        out: dict[str, Any] = {}
        for name, path in self.paths.items():
            value = getattr(self, name)
            if value is None:
                continue
            place = out
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
        return out

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Names of all settings, every field that may be left out, heading by heading."""
        return tuple(sorted(cls.panels, key=lambda name: HEADINGS.index(cls.panels[name])))


def accepts(*groups: type[Checked], **prefixes: str) -> Callable[[type[R]], type[R]]:
    """Adds the settings of `groups` to a record, each as an optional one whose default is None.

    prefixes: for a sampling inside a group ("codes", "text"), what stands before the names of its settings.
    """

    def add(kind: type[R]) -> type[R]:
        fields: dict[str, Any] = {}
        paths: dict[str, tuple[str, ...]] = {}
        panels = {name: _panel(kind, name) for name, field in kind.model_fields.items() if not field.is_required()}
        for group in groups:
            for outer, field in group.model_fields.items():
                if not is_group(group, outer):
                    fields[outer], paths[outer], panels[outer] = _optional(field, ""), (outer,), _panel(group, outer)
                    continue
                prefix, inside = prefixes[outer], field.annotation
                assert isinstance(inside, type) and issubclass(inside, Checked), "is_group says so"
                for inner, setting in inside.model_fields.items():
                    name = STEPS[outer] if inner == "steps" and not prefix else prefix + inner
                    what = next((words for start, words in OF_WHAT.items() if name.startswith(start)), "")
                    fields[name], paths[name] = _optional(setting, what, prefix), (outer, inner)
                    panels[name] = PANELS.get(prefix) or _panel(inside, inner)
        steps = [name for name in paths if name.endswith("_steps")]
        made = create_model(kind.__name__, __base__=kind, __module__=kind.__module__, __doc__=kind.__doc__, **fields)
        made.paths, made.panels = paths, panels
        made.renamed = {
            "steps": " or ".join(f"{name} ({OF_WHAT[name.removesuffix('steps')]})" for name in steps) or DECODER_STEPS
        }
        return made

    return add


def _optional(field: Any, what: str, prefix: str = "") -> Any:
    """(type, field) of a setting that may be None. what: of what it is the setting, for the help."""
    kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    text = field.description or ""
    title = f"{prefix.strip('_').capitalize()} {field.title.lower()}" if prefix and field.title else field.title
    return Optional[kind], Field(default=None, title=title, description=f"{text.removesuffix('.')} ({what})." if what else text)  # noqa: UP045


def _panel(group: type[Checked], name: str) -> str:
    """The heading of a field: its own, else that of the class which brings it."""
    extra = group.model_fields[name].json_schema_extra
    if isinstance(extra, dict) and "panel" in extra:
        return str(extra["panel"])
    return str(next(getattr(base, "panel") for base in group.__mro__ if name in inspect.get_annotations(base)))  # noqa: B009


def _not_blank(value: str, info: ValidationInfo) -> str:
    if not value.strip():
        raise ValueError(f"{info.field_name} is empty: say something in words")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]


@accepts(params.GenerateSettings, params.Trained, params.Blocks, codes="", text="reasoning_")
class Draw(Request, Decoding, init=False):
    """An image of what the prompt says (`UniModel.generate_image`)."""

    section = "generate"

    prompt: Text = Field(description="What to draw.")
    thinking: bool = Field(
        default=False,
        description="Reason in text first; the model may then choose the size itself.",
        json_schema_extra={"panel": "Reasoning"},
    )
    reasoning_regex: params.Expression | None = Field(
        default=None,
        title="Reasoning: regular expression",
        description="With thinking: the reasoning text matches this expression as a whole; the image has the size asked for.",
        json_schema_extra={"panel": "Reasoning"},
    )


@accepts(params.Size, params.Trained, params.EditSettings, params.Blocks, codes="")
class Edit(Request, Decoding, init=False):
    """An image changed as the instruction says; several images are references, in order (`UniModel.edit_image`)."""

    section = "edit"

    images: Any = Field(description="The image, or several reference images.")
    instruction: Text = Field(description="What to change.")


@accepts(params.InpaintSettings, params.Trained, params.Fitted, params.Blocks, codes="")
class Inpaint(Request, Decoding, init=False):
    """The white part of a mask filled so that the whole becomes what the prompt says (`UniModel.inpaint`)."""

    section = "generate"

    image: Any = Field(description="The image.")
    mask: Any = Field(description="An image of the same size, white where it is to be filled.")
    prompt: Text = Field(description="What the whole image shows afterwards.")


@accepts(params.UnderstandSettings, params.Blocks, text="")
class Understand(Request, Stopped, Held, init=False):
    """An answer to a question about one or several images (`UniModel.understand`)."""

    section = "understand"

    images: Any = Field(description="One or several images.")
    question: str = Field(description="What to ask about them; models of the published code take an empty one as well.")


@accepts(params.InterleaveSettings, params.Trained, params.Blocks, text="", codes="image_")
class Chat(Request, Stopped, Held, Decoding, init=False):
    """The next answer in a conversation, which may hold images (`UniModel.chat`).

    messages: {"role": "user", "assistant" or "system", "content": text, image, or a list of these}, the last by the user.
    An answer held to a grammar is text alone. One in text alone has the directory's settings of `understand`, one that may
    hold images those of `interleave`.
    """

    section = "interleave"

    messages: Any = Field(description="The conversation so far.")
    modalities: values.Modalities = Field(
        default=values.MODALITIES, description="What an answer may hold: text, or text and image."
    )

    @model_validator(mode="before")
    @classmethod
    def _text_by_a_grammar(cls, values: Any) -> Any:
        held = isinstance(values, dict) and any(values.get(name) is not None for name in Held.model_fields)
        return {"modalities": ("text",), **values} if held else values

    @model_validator(mode="after")
    def _fits_modalities(self) -> Chat:
        held = [name for name in Held.model_fields if getattr(self, name) is not None]
        if held and "image" in self.modalities:
            raise ValueError(f"{held[0]} is for answers in text: modalities must be ('text',)")
        for name in self.given() if "image" not in self.modalities else ():
            path = self.paths.get(name, ("decode",) if name in Decoding.model_fields else ("text",))
            if path[0] not in (*params.UnderstandSettings.model_fields, *params.Blocks.model_fields):
                raise ValueError(f"{name} is for answers with images: modalities must be ('text', 'image')")
        return self


@accepts(params.InterleaveSettings, params.Trained, params.Blocks, text="", codes="image_")
class Story(Request, Stopped, Decoding, init=False):
    """Text and images in turn (`UniModel.interleave`). messages: a text, or messages as in `Chat`."""

    section = "interleave"

    messages: Any = Field(description="What the story is about.")


@accepts()
class Decode(Request, Decoding, init=False):
    """The image of codes (`UniModel.decode_codes`)."""

    section = "decode"

    codes: Any = Field(description="The codes of an image.")
    decoder: params.Decoder | None = Field(
        default=None, description="turbo (distilled) or base (guided).", json_schema_extra={"panel": Decoding.panel}
    )


REQUESTS: dict[str, type[Request]] = {
    kind.__name__.lower(): kind for kind in (Draw, Edit, Inpaint, Understand, Chat, Story, Decode)
}
