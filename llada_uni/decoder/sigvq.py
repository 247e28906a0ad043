"""Features of codes: what the diffusion decoder is conditioned on (SigVQ; arXiv:2604.20796 and the released
file).

Codes [.., L] -> embedding [.., L, F] -> Linear, SiLU, Linear -> features [.., L, F].
Axes: L places, F feature width (4096 released), K codes (16384 released). The file carries no config: K and F
are the shapes of its tensors, and the module names here are those of the file.
"""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn import functional as F

from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES
from llada_uni.files.weights import (
    check_names,
    check_shape,
    default_dtype,
    read_torch,
    set_tensor,
    write_torch,
)

FILE = CODE_FEATURES.marker


class _LinearSiLU(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.proj(x))


class _Projector(nn.Module):
    """`net.0.proj` and `net.2` are the file's names; `net.1` has no weights."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_LinearSiLU(width, inner), nn.Identity(), nn.Linear(inner, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class SigVQ(nn.Module):
    """Codes [...] int64 -> features [..., width] in the weights' dtype."""

    def __init__(self, codes: int, width: int, inner: int | None = None) -> None:
        super().__init__()
        self.prior_token_embedding = nn.Embedding(codes, width)
        self.prior_projector = _Projector(width, inner or width)

    @property
    def codebook_size(self) -> int:
        return self.prior_token_embedding.num_embeddings

    @property
    def width(self) -> int:
        return self.prior_token_embedding.embedding_dim

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.prior_projector(self.prior_token_embedding(codes))

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> SigVQ:
        """Reads `sigvq_embedding.pt` (weights only: no code runs). UserError when it is damaged or
        incomplete.

        dtype None: float32 on the CPU, bfloat16 elsewhere.
        """
        state = read_torch(path)
        table, first = (
            state.get("prior_token_embedding.weight"),
            state.get("prior_projector.net.0.proj.weight"),
        )
        if table is None or first is None or table.dim() != 2 or first.dim() != 2:
            raise UserError(f"{path} holds no code features (prior_token_embedding and prior_projector)")
        with torch.device("meta"):
            module = cls(table.shape[0], table.shape[1], first.shape[0])
        expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        check_names(path, set(expected), set(state))
        for name, shape in expected.items():
            check_shape(path, name, shape, tuple(state[name].shape))
            set_tensor(module, name, state[name].to(device=device, dtype=dtype or default_dtype(device)))
        return module.eval().requires_grad_(False)

    def save_pretrained(self, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Writes the plain state dict, atomically; `path` is the file
        (.../image_tokenizer/sigvq_embedding.pt)."""
        write_torch(path, self.state_dict(), dtype)
