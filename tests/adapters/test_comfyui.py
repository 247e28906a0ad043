"""ComfyUI's nodes without ComfyUI: the form it asks for, the pictures of the task calls, the example workflow run."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni import requests
from llada_uni.adapters import comfyui
from llada_uni.adapters.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, to_image, to_pictures
from llada_uni.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples" / "comfyui"
BUILT_IN = {"STRING", "INT", "FLOAT", "BOOLEAN", "IMAGE", "MASK", "*"}
DRAWING = {"seed": 1, "image_steps": 0, "decoder": "own", "decoder_steps": 0}


def node(name: str):
    return NODE_CLASS_MAPPINGS[f"LLaDA2Uni{name}"]()


def run(name: str, **inputs):
    """What ComfyUI does with a node: the function it names, with the inputs by name; the result tuple."""
    made = node(name)
    result = getattr(made, made.FUNCTION)(**inputs)
    return result["result"] if isinstance(result, dict) else result


@pytest.fixture(scope="module")
def opened(folder):
    return run("Loader", folder=str(folder), device="cpu", dtype="auto")[0]


@pytest.fixture
def image(picture):
    return to_image([picture])


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_every_node_has_the_form_that_comfyui_asks_for(name):
    kind = NODE_CLASS_MAPPINGS[name]
    inputs = kind.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional"} and name in NODE_DISPLAY_NAME_MAPPINGS and kind.CATEGORY
    function = getattr(kind, kind.FUNCTION)
    taken = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    assert set(taken) <= set(inputs["required"])
    for type_, *options in (inputs["required"] | inputs.get("optional", {})).values():
        assert isinstance(type_, list) or type_ in BUILT_IN | {comfyui.MODEL, comfyui.CODES}
        for option in options:
            json.dumps(option)
            low, high = option.get("min", -math.inf), option.get("max", math.inf)
            assert "default" not in option or isinstance(option["default"], str) or low <= option["default"] <= high
    assert all(type_ in BUILT_IN | {comfyui.MODEL, comfyui.CODES} for type_ in kind.RETURN_TYPES)
    assert len(getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)) == len(kind.RETURN_TYPES)


def test_pictures_and_images_are_the_same_levels(picture):
    image = to_image([picture, picture.rotate(90)])
    assert image.shape == (2, 32, 32, 3) and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
    assert [np.asarray(one).tolist() for one in to_pictures(image)] == [
        np.asarray(one).tolist() for one in (picture, picture.rotate(90))
    ]


def test_text_to_image_and_back_from_codes(opened, model):
    size = {"width": 32, "height": 16, "cfg_scale": 1.0, "thinking": False}
    images, codes, thinking = run("TextToImage", model=opened, prompt="a cat", batch_size=2, **size, **DRAWING)
    want = [model.generate_image("a cat", 16, 32, cfg_scale=1.0, seed=seed) for seed in (1, 2)]
    assert torch.equal(images, to_image([one.image for one in want])) and codes == [one.codes for one in want]
    assert thinking == "\n"
    (decoded,) = run("Decode", model=opened, codes=codes[:1], seed=1, decoder="own", decoder_steps=0)
    assert torch.equal(decoded, images[:1])
    own = {"width": 0, "height": 0, "cfg_scale": -1.0, "thinking": True}
    images, _, _ = run("TextToImage", model=opened, prompt="a cat", batch_size=2, **own, **DRAWING)
    assert images.shape == (2, 32, 32, 3)


def test_edit_encode_and_ask(opened, model, picture, image):
    own = {"width": 0, "height": 0, "image_scale": -1.0, "rescale": -1.0}
    edited, codes = run("Edit", model=opened, image=image, instruction="make it red", text_scale=2.0, **own, **DRAWING)
    want = model.edit_image(picture, "make it red", text_scale=2.0, seed=1)
    assert torch.equal(edited, to_image([want.image])) and codes == [want.codes]
    (encoded,) = run("Encode", model=opened, image=image, mode="edit")
    assert encoded == [model.encode_image(picture, "edit")]
    settings = {"max_tokens": 5, "text_steps": 0, "temperature": 1.5, "seed": 3}
    (answer,) = run("Understand", model=opened, image=image, question="what is it?", **settings)
    assert answer == model.understand(picture, "what is it?", max_tokens=5, temperature=1.5, seed=3).text


def test_inpaint_takes_comfyui_s_masks(opened, model, picture, image):
    mask = torch.zeros(1, 32, 32)
    mask[:, :16, :16] = 1
    white = Image.fromarray((mask[0].numpy() * 255).astype(np.uint8))
    want = to_image([model.inpaint(picture, white, "a cat", seed=1).image])
    inputs = {"model": opened, "prompt": "a cat", "cfg_scale": -1.0, **DRAWING}
    for form in (mask, mask[0]):
        assert torch.equal(run("Inpaint", image=image, mask=form, **inputs)[0], want)
    two = run("Inpaint", image=image, mask=mask.repeat(2, 1, 1), **inputs)[0]
    assert torch.equal(two, want.repeat(2, 1, 1, 1)), "one picture goes with all masks"
    two = run("Inpaint", image=image.repeat(2, 1, 1, 1), mask=mask, **inputs)[0]
    assert torch.equal(two, want.repeat(2, 1, 1, 1)), "one mask goes with all pictures"
    small = mask[:, ::4, ::4]
    assert torch.equal(run("Inpaint", image=image, mask=small, **inputs)[0], want), "a mask is scaled to its picture"
    with pytest.raises(UserError, match="2 pictures came with 3 masks; allowed: one mask for each"):
        run("Inpaint", image=image.repeat(2, 1, 1, 1), mask=mask.repeat(3, 1, 1), **inputs)


def test_images_that_overshoot_are_clipped(picture):
    assert to_pictures(to_image([picture]) * 1.2 - 0.1)[0].size == picture.size


class Account(ModuleType):
    """Stands for `comfy.model_management`: models it was told of, and room that it makes by closing them."""

    def __init__(self):
        super().__init__("comfy.model_management")
        self.models: list[object] = []

    def throw_exception_if_processing_interrupted(self):
        pass

    def load_models_gpu(self, models, memory_required=0):
        for model in models:
            assert model.model_size() > 0 and model.load_device.type == "cpu" and model.parent is None
            if model not in self.models:
                model.model_patches_to(model.load_device)
                model.model_patches_to(model.model_dtype())
                model.partially_load(model.load_device, 0)
                self.models.append(model)

    def free_memory(self, memory_required, device):
        for model in self.models:
            assert model.loaded_size() == model.model_size() and model.current_loaded_device() == model.load_device
            model.detach()
        self.models.clear()


def test_comfyui_s_account_of_memory_knows_the_model(folder, image, monkeypatch):
    account = Account()
    monkeypatch.setitem(sys.modules, "comfy.model_management", account)
    opened = run("Loader", folder=str(folder), device="cpu", dtype="auto")[0]
    assert account.models == [], "nothing is read yet"
    (codes,) = run("Encode", model=opened, image=image, mode="edit")
    assert account.models == [opened]
    before = opened()
    account.free_memory(1e30, "cpu")
    assert opened.loaded_size() == 0
    assert run("Encode", model=opened, image=image, mode="edit") == (codes,) and opened() is not before
    monkeypatch.setattr(account, "load_models_gpu", lambda given: given[0].of_another_version)
    assert run("Encode", model=opened, image=image, mode="edit") == (codes,), "another ComfyUI: room is made, and it works"


def test_previews_are_shown_where_comfyui_was_started_with_them(opened, monkeypatch):
    shown = []
    bar = SimpleNamespace(update_absolute=lambda value, total, preview=None: shown.append(preview))
    utils, options = ModuleType("comfy.utils"), ModuleType("comfy.cli_args")
    utils.ProgressBar = lambda total: bar
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    monkeypatch.setitem(sys.modules, "comfy.cli_args", options)
    inputs = {"width": 0, "height": 0, "cfg_scale": -1.0, "thinking": False, "batch_size": 1, **DRAWING}
    for method, wanted in (("none", False), ("auto", True)):
        shown.clear()
        options.args = SimpleNamespace(preview_method=SimpleNamespace(value=method))
        run("TextToImage", model=opened, prompt="a cat", **inputs)
        previews = [one for one in shown if one is not None]
        assert bool(previews) == wanted
    kind, preview, side = previews[0]
    assert (kind, preview.size) == ("JPEG", (32, 32)) and side >= 192 and len(previews) <= 3


def test_sizes_step_by_the_side_of_a_code():
    field = NODE_CLASS_MAPPINGS["LLaDA2UniTextToImage"].INPUT_TYPES()["required"]["height"]
    assert field[1]["step"] == 32


def test_a_story_is_one_batch_of_pictures_and_its_text(opened):
    images, text = run("Story", model=opened, prompt="tell a story about a cat", max_frames=1, **DRAWING)
    assert images.shape == (max(1, text.count("[picture")), 32, 32, 3) and isinstance(text, str)


def test_loader_says_what_is_wrong_and_sees_a_new_directory(folder, tmp_path):
    loader = NODE_CLASS_MAPPINGS["LLaDA2UniLoader"]
    assert loader.VALIDATE_INPUTS(str(folder)) is True
    assert "no model directory" in loader.VALIDATE_INPUTS(str(tmp_path / "missing"))
    (tmp_path / "config.json").write_text("{}")
    before = loader.IS_CHANGED(str(tmp_path), device="cpu", dtype="auto")
    (tmp_path / "model.safetensors").touch()
    os.utime(tmp_path / "model.safetensors", (before + 10, before + 10))
    assert loader.IS_CHANGED(str(tmp_path), device="cpu", dtype="auto") == before + 10


def test_unload_frees_the_networks_and_the_model_works_again(folder, image):
    opened = run("Loader", folder=str(folder), device="cpu", dtype="auto")[0]
    (codes,) = run("Encode", model=opened, image=image, mode="edit")
    before = opened()
    assert before.parts.loaded == ("image_tokenizer",)
    unload = NODE_CLASS_MAPPINGS["LLaDA2UniUnload"]
    assert run("Unload", model=opened, after=codes) == () and math.isnan(unload.IS_CHANGED(model=opened, after=codes))
    assert unload.VALIDATE_INPUTS({"after": "STRING"})
    assert opened() is not before and opened().parts.loaded == ()
    assert run("Encode", model=opened, image=image, mode="edit") == (codes,)


def test_comfyui_s_bar_and_stop_button(opened, monkeypatch):
    moves, pressed = [], []

    class StopPressed(Exception):
        pass

    def interrupted():
        if pressed:
            raise StopPressed

    bar = SimpleNamespace(update_absolute=lambda value, total: moves.append((value, total)))
    utils, management = ModuleType("comfy.utils"), ModuleType("comfy.model_management")
    utils.ProgressBar = lambda total: bar
    management.throw_exception_if_processing_interrupted = interrupted
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    inputs = {"width": 0, "height": 0, "cfg_scale": -1.0, "thinking": False, "batch_size": 2, **DRAWING}
    run("TextToImage", model=opened, prompt="a cat", **inputs)
    assert [value for value, _ in moves] == sorted(value for value, _ in moves) and moves[-1] == (200, 200)
    pressed.append(True)
    with pytest.raises(StopPressed):
        run("TextToImage", model=opened, prompt="a cat", **inputs)


class SaveImage:
    """Stands for ComfyUI's own node."""

    RETURN_TYPES, FUNCTION, saved = (), "save", []

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {})}}

    def save(self, images, filename_prefix):
        self.saved.append((filename_prefix, images))
        return ()


def test_the_example_workflow_fits_the_nodes_and_runs():
    workflow = json.loads((EXAMPLES / "workflow.json").read_text())
    nodes = {**NODE_CLASS_MAPPINGS, "SaveImage": SaveImage}
    results = {}
    for key, step in workflow.items():  # written in the order in which it can run
        kind, inputs = nodes[step["class_type"]], {}
        assert set(step["inputs"]) == set(kind.INPUT_TYPES()["required"])
        for name, value in step["inputs"].items():
            wanted = kind.INPUT_TYPES()["required"][name][0]
            if isinstance(value, list):
                source, place = value
                assert wanted in ("*", nodes[workflow[source]["class_type"]].RETURN_TYPES[place])
                value = results[source][place]
            elif isinstance(wanted, list):
                assert value in wanted
            inputs[name] = value
        made = kind()
        result = getattr(made, kind.FUNCTION)(**inputs)
        results[key] = result["result"] if isinstance(result, dict) else result
    assert results["4"] == ("fox",), "the edited picture has a fox where the cat was"
    assert [name for name, _ in SaveImage.saved] == ["llada-uni", "llada-uni-edit"]


def test_the_folder_for_custom_nodes_exports_the_nodes():
    spec = importlib.util.spec_from_file_location("llada2_uni", EXAMPLES / "llada2_uni" / "__init__.py")
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    assert package.NODE_CLASS_MAPPINGS is NODE_CLASS_MAPPINGS
    assert package.NODE_DISPLAY_NAME_MAPPINGS.keys() == NODE_CLASS_MAPPINGS.keys()


PAGE = """
globalThis.extensions = [];
export const app = { registerExtension: (one) => extensions.push(one), graph: { setDirtyCanvas() {} } };
"""
WIDGETS = """
export const ComfyWidgets = { STRING: (node, name) => {
  const widget = { name, value: "", element: {} };
  (node.widgets ??= []).push(widget);
  return { widget };
} };
"""
RUN = """
await import("./extensions/llada2_uni/show_text.js");
const shown = [];
for (const name of ["LLaDA2UniUnderstand", "LLaDA2UniStory", "LLaDA2UniEdit"]) {
  class Node { size = [10, 10]; widgets = []; computeSize() { return [20, 20]; } setSize(size) { this.size = size; } }
  extensions[0].beforeRegisterNodeDef(Node, { name });
  const node = new Node();
  node.onExecuted?.({ text: ["a fox"] });
  node.onExecuted?.({ text: ["a fox", "and a cat"] });
  shown.push(node.widgets.map((one) => [one.value, one.element.readOnly, one.serialize]));
}
console.log(JSON.stringify(shown));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_text_is_shown_on_the_nodes_that_answer(tmp_path):
    """The page's script, run in Node.js with stand-ins for the two modules of ComfyUI that it uses."""
    web = EXAMPLES / "llada2_uni" / "web"
    spec = importlib.util.spec_from_file_location("llada2_uni", EXAMPLES / "llada2_uni" / "__init__.py")
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    assert (EXAMPLES / "llada2_uni" / package.WEB_DIRECTORY).resolve() == web.resolve()
    for name, text in {
        "package.json": '{"type": "module"}', "scripts/app.js": PAGE, "scripts/widgets.js": WIDGETS, "run.js": RUN,
        "extensions/llada2_uni/show_text.js": (web / "show_text.js").read_text(),
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(["node", tmp_path / "run.js"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[["a fox\nand a cat", True, False]]] * 2 + [[]]


NODES = {
    "TextToImage": requests.Draw,
    "Edit": requests.Edit,
    "Inpaint": requests.Inpaint,
    "Understand": requests.Understand,
    "Story": requests.Story,
    "Decode": requests.Decode,
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_a_field_for_every_setting_of_its_request(name):
    kind, inputs = NODES[name], NODE_CLASS_MAPPINGS[f"LLaDA2Uni{name}"].INPUT_TYPES()
    fields = inputs["required"] | inputs["optional"]
    assert set(kind.settings()) <= set(fields)
    untouched = {}
    for setting in kind.settings():
        form, *options = fields[setting]
        untouched[setting] = form[0] if isinstance(form, list) else options[0]["default"]
        assert setting == "seed" or options[0]["tooltip"].startswith(kind.model_fields[setting].description)
    del untouched["seed"]
    assert comfyui._given(kind, untouched) == {}


def test_fields_that_were_changed_reach_the_request():
    changed = {"temperature": 0.0, "top_k": 0, "rule": "left", "stop": "END\n.", "sprint": "r=0.5", "max_tokens": 5}
    assert comfyui._given(requests.Understand, changed) == {**changed, "stop": ["END", "."]}
    with pytest.raises(UserError, match="did you mean temperature"):
        requests.Understand(images=[], question="what?", **comfyui._given(requests.Understand, {"temperatur": 1.0}))
