"""Models of `llada-uni serve` by name, and the first one with an adapter."""

from __future__ import annotations

import pytest
import torch

from llada_uni.cli.serve_models import adapter_offer, check_names, main_and_named, named_folders
from llada_uni.errors import UserError
from llada_uni.model import UniModel
from tests.tiny_model import make_tiny_model


def test_words_become_models():
    assert main_and_named(None, []) == (None, {})
    assert main_and_named("a", ["b=models/b", "c=org/c"]) == ("a", {"b": "models/b", "c": "org/c"})
    assert main_and_named(None, ["a", "b=d=e"]) == ("a", {"b": "d=e"})


@pytest.mark.parametrize(("folder", "models"), [("a", ["b"]), (None, ["a", "b"])])
def test_two_first_models_are_refused(folder, models):
    with pytest.raises(UserError, match="NAME=DIR"):
        main_and_named(folder, models)


@pytest.mark.parametrize("given", [["x"], ["=dir"], ["x="], ["x=a", "x=b"]])
def test_names_are_needed_once(given):
    with pytest.raises(UserError, match="--lora"):
        named_folders(given, "--lora")


def test_no_two_models_have_one_name():
    check_names("a", {"b": "x"}, {"c": "y"})
    with pytest.raises(UserError, match="'b'"):
        check_names("a", {"b": "x"}, {"b": "y"})


def test_a_model_with_an_adapter(tmp_path, golden):
    """All but the backbone is shared, and the backbone is the one that an export of the adapter would have."""
    pytest.importorskip("peft")
    from llada_uni.checkpoint.load import load_backbone
    from llada_uni.training.language.lora import LoraOptions, add_lora, merge_lora, save_adapter

    folder = make_tiny_model(tmp_path / "model", golden)
    trained = add_lora(
        load_backbone(folder, device=torch.device("cpu"), dtype=torch.float32), LoraOptions(rank=2, experts=False)
    )
    with torch.no_grad():
        for name, weights in trained.named_parameters():
            if "lora_B" in name:
                weights.fill_(0.1)
    adapter = save_adapter(trained, tmp_path / "adapter")
    expected = {name: weights.clone() for name, weights in merge_lora(trained).state_dict().items()}
    base = UniModel.from_pretrained(folder, device="cpu")
    tokenizer = base.parts.text
    offer = adapter_offer(base, adapter)
    adapted = offer.open()
    found = adapted.parts.backbone.state_dict()
    assert offer.bytes > 0 and adapted.parts.text is tokenizer
    assert all(torch.equal(found[name], weights) for name, weights in expected.items())
    assert adapted.parts.backbone is adapted.parts.backbone is not base.parts.backbone
    assert any(not torch.equal(found[name], weights) for name, weights in base.parts.backbone.state_dict().items())
    with pytest.raises(UserError, match="holds no adapter"):
        adapter_offer(base, tmp_path)
