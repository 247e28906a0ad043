"""What nodes need of ComfyUI itself: its images and masks, bar, previews, stop button, and its account of memory.

ComfyUI's modules are used where they are there (`sys.modules`), and nothing of them is needed to import this file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from llada_uni.checkpoint.info import model_info
from llada_uni.errors import UserError
from llada_uni.image.arrays import images_of
from llada_uni.model import UniModel
from llada_uni.requests import Request
from llada_uni.results import Progress
from llada_uni.tasks.preview import Previews

PREVIEWS = 3  # of an image
PREVIEW_SIDE = 512  # pixels, at most


# --- images and masks ---


def to_pictures(image: torch.Tensor) -> list[Image.Image]:
    """IMAGE, float [B, H, W, 3] in 0..1 -> B pictures."""
    return images_of(image[..., :3].clamp(0, 1))  # nodes that scale overshoot, and ComfyUI lets them


def to_image(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures of one size -> IMAGE, float32 [B, H, W, 3] in 0..1."""
    return torch.stack([torch.from_numpy(np.asarray(one.convert("RGB"), np.float32) / 255) for one in pictures])


def pairs(image: torch.Tensor, mask: torch.Tensor) -> tuple[list[Image.Image], list[Image.Image]]:
    """IMAGE [B, H, W, 3] and MASK [B, h, w] or [h, w] -> as many pictures as masks, each mask of its picture's size.

    One of either goes with all of the other. UserError for other numbers.
    """
    pictures = to_pictures(image)
    masks = images_of(mask.reshape(-1, *mask.shape[-2:]).clamp(0, 1)[:, None])
    count = max(len(pictures), len(masks))
    if {len(pictures), len(masks)} - {1, count}:
        counts = f"{len(pictures)} pictures came with {len(masks)} masks"
        raise UserError(f"{counts}; allowed: one mask for each picture, or one of either")
    pictures, masks = (given * (count // len(given)) for given in (pictures, masks))
    sized = [
        one if one.size == picture.size else one.resize(picture.size, Image.Resampling.BILINEAR)
        for picture, one in zip(pictures, masks, strict=True)
    ]
    return pictures, sized


# --- a task under way ---


def run(model: OpenModel, request: Request, number: int = 0, count: int = 1) -> Any:
    """`UniModel.run` as result `number` of `count` of a node, in ComfyUI's sight."""
    opened = model()
    return opened.run(request, listener(opened, number, count, request.seed or 0))


def listener(model: UniModel, number: int = 0, count: int = 1, seed: int = 0) -> Callable[[Progress], None]:
    """Moves ComfyUI's bar, shows previews, and ends the task when the stop button was pressed."""
    utils, management = sys.modules.get("comfy.utils"), sys.modules.get("comfy.model_management")
    bar = None if utils is None else utils.ProgressBar(100 * count)
    wanted = bar is not None and _previews_wanted() and model.parts.decoder.variants
    previews = Previews(model.parts, PREVIEWS if wanted else 0, seed)

    def listen(progress: Progress) -> None:
        if management is not None:
            management.throw_exception_if_processing_interrupted()
        if bar is None:
            return
        image = previews.take(progress)
        more = () if image is None else (("JPEG", image, PREVIEW_SIDE),)
        within = 50 * progress.done // progress.total + (50 if progress.stage == "decode" else 0)
        bar.update_absolute(100 * number + within, 100 * count, *more)

    return listen


def _previews_wanted() -> bool:
    """Whether ComfyUI was started with previews (--preview-method); by default it is not."""
    options = getattr(sys.modules.get("comfy.cli_args"), "args", None)
    method = getattr(options, "preview_method", None)
    return method is not None and str(getattr(method, "value", method)).lower() not in ("none", "nopreviews")


# --- memory ---


class OpenModel:
    """A model directory that can be closed: the networks leave memory, and are read again when a node next needs them.

    To ComfyUI's account of memory (`comfy.model_management`) it is a model like its own: room is made for it before it is read,
    and it is closed when room is wanted for others. That account calls the methods named as in ComfyUI's ModelPatcher.
    """

    parent = None
    patches: dict[str, Any] = {}  # noqa: RUF012  # none, ever

    def __init__(self, folder: str, device: str | None, dtype: str | None) -> None:
        self._where = (folder, device, dtype)
        self._model: UniModel | None = None
        self._size: int | None = None
        self.model = torch.nn.Module()  # what ComfyUI holds on to; ours hold themselves

    def __call__(self) -> UniModel:
        """The model; ComfyUI is told first, whether or not it is open, so that it is the one used last."""
        fresh = self._model or UniModel.from_pretrained(*self._where)
        self._announce(fresh)
        self._model = fresh
        return fresh

    def close(self) -> None:
        """The networks leave memory."""
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _announce(self, model: UniModel) -> None:
        management = sys.modules.get("comfy.model_management")
        if management is None or not hasattr(management, "free_memory"):
            return
        self.load_device, self.offload_device = model.parts.device, torch.device("cpu")
        self._parts = model
        try:
            management.load_models_gpu([self])
        except (AttributeError, TypeError):  # another ComfyUI with other names: room is still made
            with contextlib.suppress(AttributeError, TypeError):
                management.free_memory(self.model_size(), self.load_device)

    # as ComfyUI's ModelPatcher

    def model_size(self) -> int:
        """Bytes of all its weights."""
        if self._size is None:
            self._size = model_info(self._parts.folder).memory()[_kind(self._parts.parts.dtype)]
        return self._size

    def loaded_size(self) -> int:
        """Bytes that are in memory: all of it counts once it is open."""
        return 0 if self._model is None else self.model_size()

    def current_loaded_device(self) -> torch.device:
        return self.offload_device if self._model is None else self.load_device

    def model_dtype(self) -> torch.dtype:
        return self._parts.parts.dtype

    def model_patches_to(self, device: Any) -> None:
        """There are no patches."""

    def model_patches_models(self) -> list[Any]:
        return []

    def is_clone(self, other: Any) -> bool:
        return other is self

    def clone_has_same_weights(self, other: Any) -> bool:
        return other is self

    def lowvram_patch_counter(self) -> int:
        return 0

    def partially_load(self, device: Any, extra_memory: int = 0, force_patch_weights: bool = False) -> int:
        """Nothing now: parts are read when a task needs them."""
        return 0

    def partially_unload(self, device: Any, memory_to_free: int = 0, force_patch_weights: bool = False) -> int:
        """All or nothing: the bytes that became free."""
        freed = self.loaded_size()
        self.close()
        return freed

    def detach(self, unpatch_all: bool = True) -> torch.nn.Module:
        """Room is wanted for another model."""
        self.close()
        return self.model


def _kind(dtype: torch.dtype) -> str:
    return "float32" if dtype == torch.float32 else "bfloat16"
