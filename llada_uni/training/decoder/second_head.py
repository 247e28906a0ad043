"""Two output layers on one transformer: the average velocity u to the data end, and, while training, the velocity v.

u is learnt by the transformer's own output layer and v by a copy of it, because u is the one that is kept: turbo predicts the
data as x + (1 - t) * head, and the data end of the path through x is x + (1 - t) u by the definition of u, while
x + (1 - t) v is the mean of all data that x may have come from, a blur at small t. v gives the layers below a steady,
exact target beside u's, which is made with the network's own derivative; it is dropped at export (arXiv:2604.20796).
"""

from __future__ import annotations

import copy

from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn

from llada_uni.decoder.transformer import Context, head_of, hidden, output, to_dtype_of


class TwoHeads(nn.Module):
    """`transformer` with u in its own output layer; `auxiliary` starts as a copy of that layer and learns v."""

    def __init__(self, transformer: ZImageTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.auxiliary = copy.deepcopy(head_of(transformer))

    def forward(self, state: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(u, v), float32, each like `state` [B, C, 1, H, W]; t [B]."""
        model, size = self.transformer, state.shape[1:]
        found = hidden(model, to_dtype_of(model, state), t, context)
        return output(model, head_of(model), found, size).float(), output(model, self.auxiliary, found, size).float()
