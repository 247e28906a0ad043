"""The definition of block-diffusion generation: slow and obvious. The engine must equal it token for token.

prompt -> block after block, step after step: the whole sequence of every branch is computed again, the logits
of the open positions are combined, tokens chosen, some accepted -> answer.
Source: arXiv:2604.20796, block diffusion, guidance and SPRINT. Axes: T tokens, V vocabulary, D width, H key heads,
d features a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from llada_uni.backbone import Backbone, KeyValueCache
from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.masks import block_causal
from llada_uni.backbone.rope import rotary_tables
from llada_uni.generation.corrections import Corrections
from llada_uni.generation.grammar.held import HeldBlock
from llada_uni.generation.guidance import combine
from llada_uni.generation.sampling import judge, pick
from llada_uni.generation.settings import Generation, OnStep, Settings, StepEvent, Task, draw, prepare
from llada_uni.generation.sprint import choose_kept, likeliest
from llada_uni.generation.unmasking import MASK, Step, decide


@torch.no_grad()
def generate(
    model: Backbone,
    prompt: Sequence[int],
    settings: Settings,
    branches: Mapping[str, Sequence[int]] | None = None,
    generator: torch.Generator | None = None,
    canvas: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Generation:
    """Generate an answer behind `prompt`. The same arguments, results and errors as
    `engine.Engine.generate`.
    """
    task = prepare(model.config, prompt, settings, branches, canvas, generator)
    length, stops = settings.gen_length, frozenset(settings.stop_ids)
    steps = min(settings.steps, length)
    hanging = task.end - task.start - length
    answer = [*task.canvas, *[settings.mask_id] * hanging]
    is_open = [*task.open, *[True] * hanging]
    result = Generation([])
    editable = list(is_open)  # what is not given
    stop_accepted = False  # whether the last step accepted a stop token

    def stop_at() -> int | None:
        return task.stop_at(answer[:length], is_open[:length], stops)

    def watched(block: range) -> list[int]:
        """The positions of a block that must be final before it ends: all, or those up to the stop token."""
        last = stop_at() if settings.early_stop and (stop_accepted or not settings.stop_on_accept) else None
        return [i for i in block if last is None or i <= last]

    first_block = task.start // settings.block_length
    last_block = -(-task.end // settings.block_length)
    for block in range(first_block, last_block):
        begin = block * settings.block_length
        stop = min(begin + settings.block_length, task.end)
        inside = range(max(begin - task.start, 0), stop - task.start)  # the block's positions in the answer
        kept: list[_Kept | None] = [None] * len(task.prompts)  # SPRINT: the first steps see everything
        corrections = Corrections(settings, steps)
        for step in range(corrections.limit):
            waiting = any(is_open[i] for i in watched(inside))
            if not waiting and corrections.settled(watched(inside)):
                break
            asked = [i for i in inside if (editable[i] if settings.edits else is_open[i])]
            prunes = settings.sprints is not None and step == settings.sprints.full_steps - 1
            computed = [
                _logits(model, task, b, answer, begin, stop, settings, kept[b], prunes) for b in range(len(task.prompts))
            ]
            kept = [positions_kept for _, positions_kept in computed]
            if prunes and result.kept is None and begin > 0:
                result.kept = kept[0]
            logits = task.restrict(combine(torch.stack([branch for branch, _ in computed]), settings.guidance))
            uniform, noise = draw(settings, generator, stop - begin, [task.start + i - begin for i in asked])
            logits = logits[[task.start + i for i in asked]]
            uniform = None if uniform is None else uniform.to(logits.device)
            if settings.grammar is None:
                held, sampling = None, (settings.temperature, settings.top_k, settings.top_p)
                picked = pick(logits, uniform, *sampling, task.forbidden, settings.measure, noise)
            else:
                held = HeldBlock(settings.grammar, answer, is_open, inside, length, slow=True)
                picked, logits = held.pick(asked, logits, uniform, settings, task.forbidden, noise)
            choice, confidence, likely = picked
            standing = [answer[i] for i in asked]
            rivals, certainty, own = judge(logits, task.indices_of(standing).to(logits.device), task.forbidden)
            seen = Step(
                confidence.tolist(),
                settings.threshold,
                settings.block_length,
                steps,
                step,
                likely.tolist(),
                [task.token_of(i) for i in choice.tolist()],
                [MASK if is_open[i] else answer[i] for i in asked],
                [task.token_of(i) for i in rivals.tolist()],
                certainty.tolist(),
                own.tolist(),
                settings.edit_bound,
                corrections.budget(step),
            )
            changes = decide(settings.unmasking, seen)
            if held is not None:
                kept_changes = held.kept({asked[n]: None if token == MASK else token for n, token in changes.items()})
                changes = {n: token for n, token in changes.items() if asked[n] in kept_changes}
            result.evaluations += 1
            result.branch_evaluations += len(task.prompts)
            result.accepted.append(sum(is_open[asked[n]] for n in changes))
            result.edits += sum(not is_open[asked[n]] for n in changes)
            proposed, sure = list(answer), [1.0] * len(answer)
            for n, i in enumerate(asked):
                proposed[i], sure[i] = seen.shown(n, changes)
            stop_accepted = any(token in stops for token in changes.values())
            for n, token in changes.items():
                answer[asked[n]] = settings.mask_id if token == MASK else token
                is_open[asked[n]] = token == MASK
            corrections.note({asked[n]: token for n, token in changes.items()}, not waiting)
            now = watched(inside)
            final = not any(is_open[i] for i in now) and (step + 1 == corrections.limit or corrections.settled(now))
            if on_step is not None:
                shown = range(inside.start, min(inside.stop, length))
                on_step(
                    StepEvent(
                        shown.start,
                        tuple(proposed[i] for i in shown),
                        tuple(not is_open[i] and (final or not (settings.edits and editable[i])) for i in shown),
                        step,
                        tuple(sure[i] for i in shown),
                    )
                )
        if stop_at() is not None:
            break
    for i, token in enumerate(answer[:length]):
        if token in stops and not is_open[i]:
            result.tokens = answer[: i + 1]
            return result
    result.tokens = answer[:length]
    return result


_Kept = list[torch.Tensor]  # for every layer the positions of the prefix that SPRINT kept


def _logits(
    model: Backbone,
    task: Task,
    branch: int,
    answer: list[int],
    begin: int,
    stop: int,
    settings: Settings,
    kept: _Kept | None,
    prunes: bool,
) -> tuple[torch.Tensor, _Kept | None]:
    """Logits [columns 0 to stop, V] of one branch, computed from its first token on, and what SPRINT keeps from now on.

    The block is [begin, stop). kept: what its positions may see of the prefix, None for all of it. prunes: whether SPRINT
    chooses in this step.
    """
    prompt = task.prompts[branch]
    device = model.lm_head.weight.device
    ids = torch.tensor([*prompt, *answer[: stop - task.start]], device=device)
    positions = torch.arange(len(ids), device=device)
    columns = positions + task.shift(branch)
    mask = block_causal(columns, columns, settings.block_length)
    masks = [mask] * model.config.num_hidden_layers
    prefix = max(0, begin - task.shift(branch))  # positions of this branch before the block
    if kept is not None:
        masks = [_pruned(mask, prefix, positions_kept) for positions_kept in kept]
    hidden, keys = _forward(model, ids, positions, masks, _routing(columns, settings))
    if prunes and settings.prunes is None:
        kept = [torch.arange(prefix, device=device)] * len(keys)
    elif prunes:
        assert settings.prunes is not None  # that was the case before
        # The logits at a position speak about that very position; a finished one has the same ones ever after.
        confidence = likeliest(model.logits(hidden[:prefix]))
        is_image = ids[:prefix] >= model.config.image_token_offset
        kept = [choose_kept(layer[:, :prefix], confidence, is_image, settings.prunes) for layer in keys]
    # Only the answer's columns are read; those of a shorter prompt are filled so that columns are indices.
    answers = model.logits(hidden)[len(prompt) :]
    return torch.cat((answers.new_zeros(task.start, answers.shape[1]), answers)), kept


def _routing(columns: torch.Tensor, settings: Settings) -> BlockRouting | None:
    """The limit on the experts of each block of the columns [T]."""
    if settings.block_experts is None:
        return None
    block = columns.div(settings.block_length, rounding_mode="floor")
    block = block - block[0]
    return BlockRouting(block, torch.full((int(block[-1]) + 1,), settings.block_experts, device=columns.device))


def _pruned(mask: torch.Tensor, prefix: int, seen: torch.Tensor) -> torch.Tensor:
    """The mask [T, T] in which positions behind the prefix see the positions `seen` [K] of the prefix alone."""
    pruned = mask.clone()
    pruned[prefix:, :prefix] = False
    pruned[prefix:, seen] = True
    return pruned


def _forward(
    model: Backbone, ids: torch.Tensor, positions: torch.Tensor, masks: list[torch.Tensor], blocks: BlockRouting | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Backbone.hidden` with a mask [T, T] for every layer: states [T, D] and keys [layers, H, T, d]."""
    weight = model.lm_head.weight
    keys = KeyValueCache(model.config, 1, len(ids), weight.device, weight.dtype)
    x = model.model.word_embeddings(ids[None])
    rotary = rotary_tables(positions[None], model.config.rotary_dim, model.config.rope_theta, x.dtype)
    for layer, mask in zip(model.model.layers, masks, strict=True):
        x = layer(x, rotary, mask[None, None], keys, blocks=blocks)
    return model.model.norm(x)[0], keys.keys[:, 0]
