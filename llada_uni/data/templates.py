"""The tasks a conversation record may name: which system text each has, who writes the picture's header, what must be there.

The prompt itself is written by prompts.py; a record only names its task. Users' own data use the same tasks: what the
model is asked at inference is then exactly what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

from llada_uni.errors import UserError


@dataclass(frozen=True)
class Template:
    """How the records of one task become tokens, and what they must hold.

    system: key of `prompts.TASKS`. header_given: the caller of the model puts the header of the one picture of the answer
    and its end mark (plain drawing and editing), so they are not learned, and the words of some such records are replaced
    by `<uncondition>` for guidance; otherwise the model writes headers itself and closes with end of text.
    pictures: whether the user's turns hold pictures: "none", "some" (at least one) or "any".
    answer: what the last turn holds: "text", "picture" (exactly one and no text), "both", "any".
    """

    system: str
    header_given: bool
    pictures: str
    answer: str
    what: str


TEMPLATES: dict[str, Template] = {
    "t2i": Template("generate", True, "none", "picture", "draw what the text says"),
    "think": Template("generate_thinking", False, "none", "both", "write the thoughts, then draw"),
    "understand": Template("understand", False, "some", "text", "answer a question about pictures"),
    "caption": Template("understand", False, "some", "text", "describe pictures"),
    "edit": Template("edit", True, "some", "picture", "change pictures as the text says"),
    "story": Template("interleave", False, "any", "both", "write and draw by turns"),
    "dialogue": Template("understand", False, "any", "any", "several turns, about pictures or not"),
    "text": Template("understand", False, "none", "text", "answer without any picture"),
}
"""By the name that a record gives in its field "task" (arXiv:2604.20796 and the released templates)."""


def template_of(task: object) -> Template:
    """The template of a task; UserError for an unknown name."""
    if not isinstance(task, str) or task not in TEMPLATES:
        raise UserError(f"unknown task {task!r}; allowed: {', '.join(TEMPLATES)}")
    return TEMPLATES[task]
