"""Block-diffusion generation that computes only what has changed. Equals `oracle.generate` token for token.

Keys and values of finished blocks never change under block-causal attention, so they are computed once and kept, for
every branch of guidance. A step costs one open block. This is the case of one request of `batch.BatchEngine`, which
says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from llada_uni.backbone import Backbone
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Generation, OnStep, Settings


class Engine:
    """Generates with one backbone; holds nothing between two calls."""

    def __init__(self, model: Backbone) -> None:
        self.model = model

    def generate(
        self,
        prompt: Sequence[int],
        settings: Settings,
        branches: Mapping[str, Sequence[int]] | None = None,
        generator: torch.Generator | None = None,
        canvas: Sequence[int] | None = None,
        on_step: OnStep | None = None,
    ) -> Generation:
        """Generate an answer behind `prompt` (token ids).

        branches: the prompts of guidance, {"uncond": ids} for simple, {"no_text": ids, "no_image": ids} for
        editing.
        generator: where sampled numbers come from; the same state gives the same answer, on any device.
        canvas: gen_length tokens the answer starts from; those that are not the mask are kept as they are.
        on_step: called after every step with a StepEvent; what it raises is raised here.
        Raises UserError for ids and lengths the model does not have, ValueError for a missing branch or
        generator.
        """
        request = Request(prompt, settings, branches, generator, canvas, on_step)
        (result,) = BatchEngine(self.model).run([request])
        if result.failure is not None:
            raise result.failure
        return result


def generate(
    model: Backbone,
    prompt: Sequence[int],
    settings: Settings,
    branches: Mapping[str, Sequence[int]] | None = None,
    generator: torch.Generator | None = None,
    canvas: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Generation:
    """`Engine(model).generate(...)`, with the signature of `oracle.generate`."""
    return Engine(model).generate(prompt, settings, branches, generator, canvas, on_step)
