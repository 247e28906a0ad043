"""diffusers' pipeline for this family around our backbone, so that both sides have the same weights.

`diffusers.LLaDA2Pipeline` fills masks block by block with the released rule (threshold and quota), computing the whole
sequence again at every step. It expects a model that takes (ids, attention_mask, position_ids) and returns logits, and
leaves it to the model what to do with the mask: here the mask of block-causal attention. It has no guidance and no set
of allowed ids either; a user has to build both into the model, and so does this wrapper. With greedy choice and
without its editing of finished tokens the algorithm is ours, and the tokens must be the same.
Axes: B = 1, T tokens up to the end of the present block, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal
from llada_uni.generation.guidance import combine
from llada_uni.generation.settings import Settings


class PipelineModel(nn.Module):
    """The model the pipeline calls: logits of one sequence, guided and restricted as `settings` say."""

    def __init__(
        self, backbone: Backbone, prompt: Sequence[int], settings: Settings, branches: Mapping[str, Sequence[int]]
    ) -> None:
        super().__init__()
        self.backbone, self.settings = backbone, settings
        names = settings.guidance.branches if settings.guidance is not None else ()
        self.length = len(prompt)
        self.others = [torch.tensor([list(branches[name])]) for name in names]
        closed = torch.zeros(backbone.config.vocab_size)
        if settings.allowed is not None:
            closed.fill_(float("-inf"))[torch.tensor(list(settings.allowed))] = 0
        self.register_buffer("closed", closed)

    @property
    def device(self) -> torch.device:
        """Where the pipeline is to work."""
        return self.closed.device

    def forward(self, ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> SimpleNamespace:
        """ids, attention_mask (1: may be attended to), position_ids [1, T] -> `.logits` of the last places."""
        answer, seen = ids[:, self.length :], attention_mask[:, self.length :]
        branches = [self._logits(ids, attention_mask)]
        for prompt in self.others:
            valid = torch.cat((torch.ones_like(prompt), seen), 1)
            branches.append(self._logits(torch.cat((prompt, answer), 1), valid))
        shortest = min(logits.shape[0] for logits in branches)
        guided = combine(torch.stack([logits[-shortest:] for logits in branches]), self.settings.guidance)
        return SimpleNamespace(logits=(guided + self.closed)[None])

    def _logits(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Logits [T, V] of one branch; its blocks have their borders where those of the conditional prompt are."""
        positions = torch.arange(ids.shape[1])
        length = self.settings.block_length
        columns = positions - ids.shape[1]  # the present block ends at a border
        mask = block_causal(columns, columns, length) & valid.bool()
        return self.backbone(ids, positions[None], mask[None, None])[0]


def pipeline_tokens(
    backbone: Backbone, prompt: Sequence[int], settings: Settings, branches: Mapping[str, Sequence[int]] | None = None
) -> list[int]:
    """What diffusers' pipeline generates behind `prompt`: gen_length tokens. Greedy settings of the released rule only."""
    from diffusers import BlockRefinementScheduler, LLaDA2Pipeline

    model = PipelineModel(backbone, prompt, settings, branches or {})
    pipeline = LLaDA2Pipeline(model=model, scheduler=BlockRefinementScheduler(block_length=settings.block_length))
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        input_ids=torch.tensor([list(prompt)]),
        gen_length=settings.gen_length,
        block_length=settings.block_length,
        num_inference_steps=settings.steps,
        threshold=settings.threshold,
        editing_threshold=None,
        mask_token_id=settings.mask_id,
        output_type="seq",
    )
    return output.sequences[0].tolist()
