"""What the one loop (trainer.py) can be told, the section `loop` of a recipe; and the learning rate over a run."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, options

Schedule = Literal["constant", "cosine", "wsd"]


@options
class LoopOptions:
    """What the loop does, the same for every stage.

    steps: optimizer steps in all. micro_batches: parts of a global batch, shared out over the processes.
    prefetch: how many of them are drawn ahead, in a thread, while a step computes; 0: each when it is needed (prefetch.py).
    lr: peak learning rate; schedule: constant | cosine | wsd; warmup: steps of linear rise; decay_fraction: part of the steps
    in which wsd falls; min_lr_fraction: where cosine and wsd end, relative to lr.
    optimizer: adamw | muon (for hidden matrices, adamw for the rest; muon.py). muon_scale: root mean square of Muon's updates,
    relative to lr (AdamW's are about 0.2): more of it moves matrices faster than embeddings.
    weight_decay: on matrices only (tensors of two and more axes); betas, eps: AdamW's; clip: largest gradient norm, 0 = off.
    ema: decay of the averaged weights, which are evaluated and exported; 0 = off.
    precision: float32 | bfloat16 (computation, Muon's as well; weights, averages and the optimizer's state stay in float32).
    compile: torch compiles the layers: minutes at the start and a C++ compiler for faster steps (docs/training.md, "Speed").
    on_nan: stop | skip, when a loss or gradient is not finite; the batch is saved either way; max_skips: how many in a row.
    save_every, save_seconds: a checkpoint after so many steps, after so much time (0 = not); keep: checkpoints that stay.
    log_every, evaluate_every: in steps (evaluate_every 0 = never). threads: of torch on the CPU, 0 = as it is.
    watch: the metric of evaluations by which the best is told, lower being better ("-NAME": higher). keep_best: the checkpoint
    of the best evaluation stays, and is what the run exports. patience: so many evaluations in a row without a better one end
    the run, 0 = never.
    samples_every: a sheet of images after so many steps, where the stage has some (0 = never). tensorboard: write it;
    wandb: name of a project of Weights & Biases that rows and sheets go to as well, "" = none.
    """

    steps: AtLeastOne = 1000
    micro_batches: AtLeastOne = 1
    prefetch: Annotated[int, Field(ge=0)] = 2
    lr: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: int = 100
    decay_fraction: float = 0.2
    min_lr_fraction: float = 0.02
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_scale: Annotated[float, Field(gt=0)] = 0.2
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip: float = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    on_nan: Literal["stop", "skip"] = "stop"
    max_skips: int = 10
    save_every: int = 0
    save_seconds: float = 600.0
    keep: AtLeastOne = 2
    log_every: AtLeastOne = 50
    evaluate_every: int = 0
    threads: int = 0
    watch: str = "loss"
    keep_best: bool = False
    patience: Annotated[int, Field(ge=0)] = 0
    samples_every: Annotated[int, Field(ge=0)] = 0
    tensorboard: bool = True
    wandb: str = ""

    def __post_init__(self) -> None:
        if (self.keep_best or self.patience) and not self.evaluate_every:
            raise UserError("keep_best and patience go by evaluations: set loop.evaluate_every")


def rate_factor(options: LoopOptions, step: int) -> float:
    """The learning rate of optimizer step `step` (from 0) as a factor of its peak: a linear rise, then one of three shapes.

    constant: stays at the peak. cosine: falls along half a cosine. wsd (warm-up, stable, decay): stays at the peak and falls
    linearly over the last `decay_fraction` of the steps (arXiv:2404.06395, section 4). After the warm-up cosine and wsd never
    fall below `min_lr_fraction`.
    """
    least, warmup = options.min_lr_fraction, options.warmup
    if step < warmup:
        return (step + 1) / warmup
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "cosine":
        done = (step - warmup) / max(1, options.steps - warmup)
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    tail = max(1, round(options.steps * options.decay_fraction))
    return max(least, min(1.0, (options.steps - step) / tail))
