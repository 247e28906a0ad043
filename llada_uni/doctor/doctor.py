"""`llada-uni doctor`: everything about one model, on this disk or on the hub, and what to type.

directory or "org/name" -> checks, parts, settings, memory in each form, this machine -> `Diagnosis`. Of a model on the hub only
configs, tokenizer and the headers of its weight files are fetched.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llada_uni.checkpoint.info import BYTES, ModelInfo, PartInfo, model_info
from llada_uni.config import BackboneConfig
from llada_uni.decoder.decode import TILE
from llada_uni.doctor.checks import Check, OnCheck, run_checks
from llada_uni.doctor.memory import FORMS, Device, Fit, Need, best_fit, needs, this_machine
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, CODE_FEATURES, backbone_folder
from llada_uni.hub.listing import Access, Listing
from llada_uni.hub.names import is_id
from llada_uni.hub.record import check_complete
from llada_uni.hub.skeleton import looked_at
from llada_uni.tasks.defaults import Defaults

_PROMPT = "a lighthouse at sunset"


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found. settings: what holds where a caller gives nothing, "profile" whose conventions; fits: the best way on
    each device that has one.
    """

    name: str
    commit: str | None
    checks: tuple[Check, ...]
    info: ModelInfo
    settings: dict[str, Any]
    needs: tuple[Need, ...]
    devices: tuple[Device, ...]
    fits: tuple[Fit, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type: the best way on the best device; nothing where the model is broken or fits nowhere."""
        return commands(self.name, self.fits[0]) if self.ok and self.fits else ()

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "commit": self.commit,
            "ok": self.ok,
            "checks": [check.to_json() for check in self.checks],
            **{name: value for name, value in self.info.to_json().items() if name in ("parts", "missing", "parameters")},
            "settings": self.settings,
            "needs": [need.to_json() for need in self.needs],
            "devices": [asdict(device) for device in self.devices],
            "fits": [{**asdict(fit), "device": fit.device.name, "commands": commands(self.name, fit)} for fit in self.fits],
            "commands": list(self.commands),
        }


def commands(name: str, fit: Fit) -> tuple[str, ...]:
    """The command lines that draw an image that way."""
    model = shlex.quote(name)
    first: tuple[str, ...] = ()
    how = " ".join(fit.options)
    if fit.quantize:
        smaller = shlex.quote(f"{name.rstrip('/').rpartition('/')[2]}-{fit.form}")
        pull = is_id(name) and not Path(name).expanduser().is_dir()
        make = f"pull {model} --quantization {fit.form} --to" if pull else f"quantize {model} --format {fit.form}"
        model, first = smaller, (f"llada-uni {make} {smaller}",)
    if fit.two_steps:
        return (
            f'llada-uni generate "{_PROMPT}" -m {model} {how} --decoder none -o codes.json',
            f"llada-uni decode codes.json -m {model} {how} -o image.png",
        )
    return (*first, f'llada-uni generate "{_PROMPT}" -m {model} {how} -o image.png')


def diagnose(
    name: str,
    access: Access | None = None,
    deep: bool = False,
    devices: Sequence[Device] | None = None,
    on_check: OnCheck = lambda what: None,
) -> Diagnosis:
    """Examines a directory, a cache root, or a model on the hub. devices: None looks at this machine.

    deep: every value and every hash is read, too. UserError when there is no model, and for `deep` on the hub.
    """
    if deep and is_id(name) and not Path(name).exists():
        raise UserError(f"--deep reads every value: fetch the model (llada-uni pull {name}), then name its directory")
    on_check(f"headers of {name}")
    with looked_at(name, access) as (model, listing):
        try:
            info = model_info(model)
        except UserError:
            check_complete(model)  # its line is the better one
            raise
        checks = tuple(run_checks(model, info, deep, listing is not None, on_check))
        settings = Defaults.from_folder(model)
        parts = (*info.parts, *_features(listing))
        table = needs(parts, _config(model), settings.generate.height, TILE)
    found = tuple(this_machine() if devices is None else devices)
    stored = next((part.quantization for part in info.parts if part.name == BACKBONE.name), None)
    fits = tuple(fit for device in found if (fit := best_fit(table, device, stored)) is not None)
    commit = None if listing is None else listing.commit
    return Diagnosis(name, commit, checks, info, settings.to_json(), tuple(table), found, fits)


def _features(listing: Listing | None) -> list[PartInfo]:
    """The code features of a model on the hub: a torch file has no header to read alone, so its size must do."""
    if listing is None:
        return []
    found = []
    for file in listing.of([CODE_FEATURES]):
        memory = {form: file.size * BYTES.get(form, 2) // 2 for form in FORMS}
        found.append(PartInfo(CODE_FEATURES.name, 0, file.size // 2, file.size // 2, file.size, {}, memory))
    return found


def _config(model: Path) -> BackboneConfig | None:
    try:
        return BackboneConfig.from_json(backbone_folder(model) / BACKBONE.marker)
    except UserError:
        return None
