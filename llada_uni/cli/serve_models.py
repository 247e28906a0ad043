"""Which models `llada-uni serve` has: the first one, further ones (`--model name=dir`) and adapters (`--lora name=dir`).

Words of the command line -> what `serving.scheduler.models` can open when a request asks for it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.cli.common import PANEL, ModelOptions
from llada_uni.errors import UserError

if TYPE_CHECKING:
    from llada_uni.model import UniModel
    from llada_uni.serving.scheduler.models import Offer

Served = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="[NAME=]DIR",
        help="Model directory, or org/name on the hub; with NAME= a further one, read when it is asked for. May be repeated.",
        **PANEL,
    ),
]


@dataclass(frozen=True)
class ServedOptions(ModelOptions):
    """`ModelOptions` of several models: they are loaded alike."""

    model: Served = None  # type: ignore[assignment]  # several here

    def one(self, name_or_dir: str | None) -> ModelOptions:
        """The options of one model."""
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return ModelOptions(**given | {"model": name_or_dir})


def main_and_named(folder: str | None, models: Iterable[str]) -> tuple[str | None, dict[str, str]]:
    """(the model that is meant where a request names none; further ones by name). UserError for two of the first kind."""
    plain = [one for one in models if "=" not in one]
    if len(plain) + (folder is not None) > 1:
        raise UserError("the model is given twice; further ones have a name: --model NAME=DIR")
    return (folder or (plain[0] if plain else None)), named_folders([one for one in models if "=" in one], "--model")


def named_folders(given: Iterable[str], option: str) -> dict[str, str]:
    """name -> directory. UserError for one without a name, and for a name given twice."""
    named: dict[str, str] = {}
    for one in given:
        name, mark, folder = (part.strip() for part in one.partition("="))
        if not (name and mark and folder and name.isprintable()):
            raise UserError(f"{option} is {one!r}; it must be NAME=DIR")
        if name in named:
            raise UserError(f"{option} gives the name {name!r} twice")
        named[name] = folder
    return named


def check_names(main: str, *others: Mapping[str, str]) -> None:
    """UserError where two models would have one name."""
    names = [main, *(name for each in others for name in each)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two models are called {twice!r}; give each a name of its own (the first one with --name)")


def model_offer(loading: ModelOptions) -> Offer:
    """A model of its own. UserError where it is not there."""
    from llada_uni.serving.scheduler.models import Offer, size_of

    opened = loading.load(f"looking for {loading.model}")
    return Offer(lambda: loading.load(), size_of(opened.folder))


def adapter_offer(base: UniModel, folder: Path) -> Offer:
    """The first model with an adapter in peft's format added to a copy of its backbone; all else is shared. UserError where
    there is no adapter.
    """
    from llada_uni.files.model_dir import backbone_folder
    from llada_uni.serving.scheduler.models import Offer, size_of

    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter (adapter_config.json is missing)")
    weights = backbone_folder(base.folder)
    size = size_of(weights) if weights != base.folder else sum(path.stat().st_size for path in weights.glob("*.safetensors"))
    return Offer(lambda: _adapted(base, folder), size)


def _adapted(base: UniModel, folder: Path) -> UniModel:
    """The model, whose backbone is read when it is first needed."""
    from llada_uni.model import UniModel
    from llada_uni.tasks.parts import Parts

    class AdaptedParts(Parts):
        @property
        def backbone(self) -> Any:
            if "_adapted" not in vars(self):
                from llada_uni.checkpoint.load import load_backbone

                try:
                    from llada_uni.training.language.lora import load_adapter, merge_lora
                except ImportError as error:
                    raise UserError("an adapter needs peft: pip install 'llada-uni[train]'") from error
                own = load_backbone(self.folder, device=self.device, dtype=self.dtype, quantization=self.quantization)
                vars(self)["_adapted"] = merge_lora(load_adapter(own, folder))
            return vars(self)["_adapted"]

    parts = copy.copy(base.parts)
    for own in ("backbone", "engine"):
        vars(parts).pop(own, None)
    parts.__class__ = AdaptedParts
    return UniModel(parts)
