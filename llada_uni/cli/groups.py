"""Options that many commands share, written once: a command that takes a group gets an option for each of its settings.

A group is a dataclass, or the settings of a request (`cli/settings.py`).

    @dataclass(frozen=True)
    class Loading:
        device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None

    @with_groups
    def draw(prompt: str, *, loading: Loading) -> None: ...   # llada-uni draw PROMPT --device cuda
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from llada_uni.cli.settings import Settings


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: each parameter that is a group is replaced by the options of the group.

    Every field of a dataclass needs a default, and a type with what typer must know (Annotated). The options stand in the
    help where the parameter stood. TypeError for two options of one name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    settings: dict[str, Settings] = {}
    options: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
            new = [(field.name, _hint(hints[name], field), field.default) for field in dataclasses.fields(hints[name])]
        elif found := [one for one in getattr(hints[name], "__metadata__", ()) if isinstance(one, Settings)]:
            settings[name] = found[0]
            new = found[0].options()
        else:
            new = [(name, hints[name], parameter.default)]
        for option, hint, default in new:
            if option in options:
                raise TypeError(f"{command.__name__} has two options {option!r}")
            options[option] = inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        for name, those in settings.items():
            given[name] = those.read({option: given.pop(option) for option in those.names})
        command(**given)

    called.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    called.__annotations__ = {name: option.annotation for name, option in options.items()} | {"return": None}
    return called


def _hint(group: type, field: dataclasses.Field[Any]) -> Any:
    return get_type_hints(group, include_extras=True)[field.name]
