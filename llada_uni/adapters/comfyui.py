"""Nodes for ComfyUI: load, draw, ask, edit, inpaint, tell a story, codes in and out, unload.

ComfyUI's IMAGE (float [B, H, W, 3] in 0..1) and MASK ([B, H, W], 1 = draw again) -> requests for `UniModel.run` -> IMAGE,
STRING, and LLADA_UNI_CODES (grids of codes, one an image). The fields of a node are the settings of its request
(`llada_uni/requests.py`); a number just below what is allowed (0 or -1), "own" and "" mean the model directory's own. ComfyUI
finds the nodes through `NODE_CLASS_MAPPINGS`. What is used of ComfyUI itself, where it is there, is in comfyui_host.py.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from llada_uni import requests
from llada_uni.adapters.comfyui_host import OpenModel, pairs, run, to_image, to_pictures
from llada_uni.checked import schema_of
from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.generation.params import CODES_ONLY, LARGEST_SEED, Size
from llada_uni.image.codes import ImageCodes
from llada_uni.image.tokenizer import Mode
from llada_uni.requests import Draw, Request
from llada_uni.results import EndEvent, ImageEvent
from llada_uni.tasks.find import open_model
from llada_uni.tasks.parts import DTYPES

MODEL, CODES = "LLADA_UNI_MODEL", "LLADA_UNI_CODES"
CATEGORY = "LLaDA2-Uni"
OWN = "own"  # of a choice: the model's own
FINER = ("Sampling", "Reasoning")  # headings whose settings are optional inputs, but for these:
RARE = ("other_size",)  # optional ones under the other headings: workflows of before still run
ALWAYS = ("seed", "image_steps", "text_steps", "max_tokens", "temperature", "thinking")
SIDE_STEP = 32  # pixels by which the arrows of a size field move: the side of a code of the released model
WORDS = ("STRING", {"multiline": True, "default": ""})
SEED = ("INT", {"default": 0, "min": 0, "max": LARGEST_SEED, "control_after_generate": True})
COUNT = ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "images, with the seeds that follow one another"})


class Loader:
    """Opens a model directory."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (MODEL,), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        about = f"a model directory, or org/name on the hub; {shipped.MODEL}: the shipped one"
        folder = ("STRING", {"default": shipped.MODEL, "tooltip": about})
        return {"required": {"folder": folder, "device": (["auto", "cpu", "cuda", "mps"],), "dtype": (["auto", *DTYPES],)}}

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str) -> bool | str:
        try:
            open_model(folder)
        except UserError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, folder: str, **_: str) -> float:
        """A directory that was written again is opened again."""
        return max(file.stat().st_mtime for file in open_model(folder)[0].rglob("*") if file.is_file())

    def load(self, folder: str, device: str, dtype: str) -> tuple[OpenModel]:
        return (OpenModel(folder, *(None if name == "auto" else name for name in (device, dtype))),)


class TextToImage:
    """Draws what the prompt says; with thinking, the model writes down its thoughts first."""

    CATEGORY, FUNCTION = CATEGORY, "draw"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", CODES, "STRING"), ("image", "codes", "thinking")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(Draw, {"model": (MODEL,), "prompt": WORDS}, {"batch_size": COUNT})

    def draw(self, model: OpenModel, prompt: str, seed: int, batch_size: int, **settings: Any) -> tuple[Any, ...]:
        request = Draw(prompt=prompt, seed=seed, **_given(Draw, settings))
        if batch_size > 1:  # one IMAGE has one size, so reasoning text cannot choose it
            request = request.replace(**_size_of(model().parts.defaults.generate, request))
        results = [run(model, request.replace(seed=seed + i), i, batch_size) for i in range(batch_size)]
        thoughts = "\n".join(result.thinking or "" for result in results)
        return to_image([result.image for result in results]), [result.codes for result in results], thoughts


class Edit:
    """Changes a picture as the instruction says; several pictures of a batch are references."""

    CATEGORY, FUNCTION = CATEGORY, "edit"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", CODES), ("image", "codes")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(requests.Edit, {"model": (MODEL,), "image": ("IMAGE",), "instruction": WORDS})

    def edit(self, model: OpenModel, image: torch.Tensor, instruction: str, seed: int, **settings: Any) -> tuple[Any, ...]:
        pictures = to_pictures(image)
        own = _given(requests.Edit, settings)
        result = run(model, requests.Edit(images=pictures, instruction=instruction, seed=seed, **own))
        return to_image([result.image]), [result.codes]


class Inpaint:
    """Draws the masked part again, so that the whole picture becomes what the prompt says. A mask is scaled to its picture; one
    mask serves all pictures, and one picture all masks.
    """

    CATEGORY, FUNCTION = CATEGORY, "inpaint"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", CODES), ("image", "codes")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(requests.Inpaint, {"model": (MODEL,), "image": ("IMAGE",), "mask": ("MASK",), "prompt": WORDS})

    def inpaint(
        self, model: OpenModel, image: torch.Tensor, mask: torch.Tensor, prompt: str, seed: int, **settings: Any
    ) -> tuple[Any, ...]:
        pictures, masks = pairs(image, mask)
        own = {"prompt": prompt, "seed": seed, **_given(requests.Inpaint, settings)}
        results = [
            run(model, requests.Inpaint(image=one, mask=hole, **own), i, len(pictures))
            for i, (one, hole) in enumerate(zip(pictures, masks, strict=True))
        ]
        return to_image([result.image for result in results]), [result.codes for result in results]


class Understand:
    """Answers a question about the pictures of a batch, all together."""

    CATEGORY, FUNCTION = CATEGORY, "ask"
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("answer",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(requests.Understand, {"model": (MODEL,), "image": ("IMAGE",), "question": WORDS})

    def ask(self, model: OpenModel, image: torch.Tensor, question: str, seed: int, **settings: Any) -> dict[str, Any]:
        pictures = to_pictures(image)
        own = _given(requests.Understand, settings)
        result = run(model, requests.Understand(images=pictures, question=question, seed=seed, **own))
        return {"ui": {"text": [result.text]}, "result": (result.text,)}


class Story:
    """Words and pictures in turn. The text says [picture 1] where a picture stands."""

    CATEGORY, FUNCTION = CATEGORY, "tell"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("images", "text")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(requests.Story, {"model": (MODEL,), "prompt": WORDS})

    def tell(self, model: OpenModel, prompt: str, seed: int, **settings: Any) -> dict[str, Any]:
        uni, said, images = model(), [], []
        request = requests.Story(messages=prompt, seed=seed, **_given(requests.Story, settings))
        size = _size_of(uni.parts.defaults.interleave, request)
        for event in run(model, request):
            if isinstance(event, ImageEvent):
                images.append(event.image.resize((size["width"], size["height"])))  # one IMAGE has one size
                said.append(f"[picture {event.number}]")
            elif not isinstance(event, EndEvent):
                said.append(event.text)
        text = "\n".join(said)
        blank = [Image.new("RGB", (size["width"], size["height"]))]
        return {"ui": {"text": [text]}, "result": (to_image(images or blank), text)}


class Encode:
    """Codes of pictures."""

    CATEGORY, FUNCTION = CATEGORY, "encode"
    RETURN_TYPES, RETURN_NAMES = (CODES,), ("codes",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": (MODEL,), "image": ("IMAGE",), "mode": (["edit", "understand", "raw"],)}}

    def encode(self, model: OpenModel, image: torch.Tensor, mode: Mode) -> tuple[list[ImageCodes]]:
        return ([model().encode_image(picture, mode) for picture in to_pictures(image)],)


class Decode:
    """Pictures of codes."""

    CATEGORY, FUNCTION = CATEGORY, "decode"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(requests.Decode, {"model": (MODEL,), "codes": (CODES,)})

    def decode(self, model: OpenModel, codes: list[ImageCodes], seed: int, **settings: Any) -> tuple[torch.Tensor]:
        own = {"seed": seed, **_given(requests.Decode, settings)}
        results = [run(model, requests.Decode(codes=one, **own), i, len(codes)) for i, one in enumerate(codes)]
        return (to_image([result.image for result in results]),)


class Unload:
    """Takes the networks out of memory once `after` has come; the model works again when it is next used."""

    CATEGORY, FUNCTION = CATEGORY, "unload"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": (MODEL,), "after": ("*", {"tooltip": "any output that must be there first"})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict[str, str]) -> bool:
        """Naming the types here tells ComfyUI that `after` takes every type."""
        return True

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # equals nothing: run every time

    def unload(self, model: OpenModel, after: Any) -> tuple[()]:
        model.close()
        return ()


NODE_CLASS_MAPPINGS = {
    f"LLaDA2Uni{node.__name__}": node
    for node in (Loader, TextToImage, Edit, Inpaint, Understand, Story, Encode, Decode, Unload)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LLaDA2UniLoader": "LLaDA2-Uni: load",
    "LLaDA2UniTextToImage": "LLaDA2-Uni: text to image",
    "LLaDA2UniEdit": "LLaDA2-Uni: edit",
    "LLaDA2UniInpaint": "LLaDA2-Uni: inpaint",
    "LLaDA2UniUnderstand": "LLaDA2-Uni: ask about pictures",
    "LLaDA2UniStory": "LLaDA2-Uni: story",
    "LLaDA2UniEncode": "LLaDA2-Uni: picture to codes",
    "LLaDA2UniDecode": "LLaDA2-Uni: codes to picture",
    "LLaDA2UniUnload": "LLaDA2-Uni: unload",
}


# --- fields of nodes and settings of requests ---


def _inputs(kind: type[Request], content: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """A node's inputs: what the task is about, and a field for each setting of its request. The finer settings are optional."""
    fields = {name: SEED if name == "seed" else _field(kind, name) for name in kind.settings()}
    main = {name: field for name, field in fields.items() if _is_main(kind, name)}
    finer = {name: field for name, field in fields.items() if name not in main}
    return {"required": {**content, **main, **(more or {})}, "optional": finer}


def _is_main(kind: type[Request], name: str) -> bool:
    """Whether a setting is a required input of its node."""
    return name in ALWAYS or (kind.panels[name] not in FINER and name not in RARE)


def _field(kind: type[Request], name: str) -> tuple[Any, ...]:
    """ComfyUI's form of one setting."""
    schema, tip = schema_of(kind, name), {"tooltip": kind.model_fields[name].description}
    if "enum" in schema:
        return [OWN, *(word for word in schema["enum"] if word != CODES_ONLY)], tip
    if schema["type"] == "boolean":
        return "BOOLEAN", {"default": False, **tip}
    if schema["type"] not in ("integer", "number"):
        return "STRING", {"default": "", **tip}
    own = _own(schema)
    tip["tooltip"] = f"{tip['tooltip']} {own:g}: the model's own."
    field = {"default": own, "min": own, "max": schema["maximum"], **tip}
    if schema["type"] == "integer":
        return "INT", field | ({"step": SIDE_STEP} if name in Size.model_fields else {})
    return "FLOAT", field | {"step": 0.01 if schema["maximum"] <= 1 else 0.1}


def _own(schema: dict[str, Any]) -> int | float:
    """The number of a field that stands for the model's own setting: one that the setting cannot have."""
    return schema["minimum"] - 1 if schema["type"] == "integer" else -1.0


def _given(kind: type[Request], fields: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from "the model's own", as keywords for the request. UserError for one that it has not."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        schema = schema_of(kind, name) if name in kind.model_fields else {}
        numeric = schema.get("type") in ("integer", "number")
        if value in (OWN, "") or value is False or (numeric and value == _own(schema)):
            continue
        found[name] = value.splitlines() if schema.get("type") == "array" else value
    return found


def _size_of(defaults: Size, request: Request) -> dict[str, int]:
    """height and width in pixels, the directory's own where none is asked for."""
    return {name: getattr(request, name) or getattr(defaults, name) for name in Size.model_fields}
