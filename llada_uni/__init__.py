"""LLaDA2.0-Uni: one block-diffusion model that reads and draws. `from llada_uni import UniModel` is where a program starts.

Nothing heavy is imported before it is used: `import llada_uni` alone loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llada_uni.bars import Bars as Bars
    from llada_uni.errors import UserError as UserError
    from llada_uni.model import UniModel as UniModel

    __version__: str

_HOMES = {"Bars": "llada_uni.bars", "UniModel": "llada_uni.model", "UserError": "llada_uni.errors"}
__all__ = ["Bars", "UniModel", "UserError", "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("llada-uni")  # pyproject.toml is the only place that spells it
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
