"""Every task on a device without float64, as a Mac's GPU is: here a mode of torch that refuses it, and the sampler as there."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from llada_uni.decoder import sampling
from llada_uni.model import UniModel
from llada_uni.results import ImageEvent
from tests.tiny_model import make_tiny_model

PICTURE = Image.new("RGB", (32, 32), (20, 90, 200))
MASK = Image.new("L", (32, 32), 255)


class NoFloat64(TorchDispatchMode):
    """What a device without float64 does with it: it raises."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_flatten((args, kwargs, out))[0]:
            if isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype ({function})")
        return out


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    """With its parts in memory: diffusers computes tables on the CPU, whatever the device is, when they are read."""
    model = UniModel.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), device="cpu")
    for decoder in ("turbo", "base"):
        model.generate_image("a cat", decoder=decoder)
    model.understand(PICTURE, "what?")
    return model


TASKS = {
    "turbo": lambda model: model.generate_image("a cat", seed=1, temperature=1.0, top_p=0.9, top_k=5),
    "base": lambda model: model.generate_image("a cat", seed=1, decoder="base", thinking=True),
    "rescaled": lambda model: model.generate_image("a cat", seed=1, rescale=0.7, rule="entropy"),
    "edit": lambda model: model.edit_image(PICTURE, "a dog", seed=1, image_scale=1.5, rescale=0.7),
    "inpaint": lambda model: model.inpaint(PICTURE, MASK, "a dog", seed=1),
    "understand": lambda model: model.understand(PICTURE, "what?", seed=1, temperature=0.7, sprint="r=0.5"),
    "chat": lambda model: model.chat([{"role": "user", "content": [PICTURE, "what?"]}], seed=1),
    "story": lambda model: [one for one in model.interleave("a story", seed=1) if isinstance(one, ImageEvent)],
    "decode": lambda model: model.decode_codes(model.encode_image(PICTURE), seed=1, resolution_multiplier=4),
    "nearness": lambda model: model.parts.image_tokenizer.encode_with_nearness(PICTURE),
}


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_float64(model, monkeypatch, name):
    monkeypatch.setattr(sampling, "NARROW", ("mps", "cpu"))
    with NoFloat64():
        TASKS[name](model)


def test_the_mode_finds_float64(model):
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        TASKS["turbo"](model)


def test_the_image_is_the_same_to_a_level(model, monkeypatch):
    wide = model.generate_image("a cat", seed=1).image
    monkeypatch.setattr(sampling, "NARROW", ("mps", "cpu"))
    narrow = model.generate_image("a cat", seed=1).image
    one, other = (torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).int() for image in (wide, narrow))
    assert (one - other).abs().max() <= 1
