"""Code features: the file is read without running code, checked, and written back."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional as F

from llada_uni.decoder.sigvq import SigVQ
from llada_uni.errors import UserError


@pytest.fixture(scope="module")
def path(golden):
    return golden / "image_tokenizer" / "sigvq_embedding.pt"


def test_is_embedding_linear_silu_linear(path):
    module, state = SigVQ.from_pretrained(path), torch.load(path, weights_only=True)
    codes = torch.tensor([[0, 5, 63]])
    x = state["prior_token_embedding.weight"][codes]
    x = F.silu(x @ state["prior_projector.net.0.proj.weight"].T + state["prior_projector.net.0.proj.bias"])
    x = x @ state["prior_projector.net.2.weight"].T + state["prior_projector.net.2.bias"]
    torch.testing.assert_close(module(codes), x)
    assert (module.codebook_size, module.width) == (64, 32)


def test_save_and_read_back(path, tmp_path):
    module = SigVQ.from_pretrained(path)
    module.save_pretrained(tmp_path / "image_tokenizer" / "sigvq_embedding.pt")
    before = torch.load(path, weights_only=True)
    after = torch.load(tmp_path / "image_tokenizer" / "sigvq_embedding.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(list((tmp_path / "image_tokenizer").iterdir())) == 1


class _Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_refuses_code_and_damage(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"prior_token_embedding.weight": _Harm()}, tmp_path / "harm.pt")
    with pytest.raises(UserError, match="damaged or holds more than plain tensors"):
        SigVQ.from_pretrained(tmp_path / "harm.pt")
    assert not (tmp_path / "harmed").exists()

    whole = path.read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"short\.pt is damaged"):
        SigVQ.from_pretrained(tmp_path / "short.pt")
    with pytest.raises(UserError, match="there is no file"):
        SigVQ.from_pretrained(tmp_path / "none.pt")

    state = torch.load(path, weights_only=True)
    for change, words in (
        ({"prior_projector.net.2.bias": torch.zeros(3)}, r"net.2.bias has the shape \[3\], expected \[32\]"),
        ({"more": torch.zeros(1)}, "unknown tensor more"),
    ):
        torch.save({**state, **change}, tmp_path / "changed.pt")
        with pytest.raises(UserError, match=words):
            SigVQ.from_pretrained(tmp_path / "changed.pt")
    del state["prior_projector.net.2.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"lacks the tensor prior_projector.net.2.bias"):
        SigVQ.from_pretrained(tmp_path / "less.pt")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no code features"):
        SigVQ.from_pretrained(tmp_path / "other.pt")
