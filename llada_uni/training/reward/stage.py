"""The stage `reward`: policy optimization for block diffusion (EBPO of the LLaDA2.1 report, ESPO arXiv:2512.03759).

Prompts (prompts.py) -> G answers each, by the network as it is (rollouts.py) -> rewards (rewards.py) -> advantages in the group
-> log-likelihoods in one forward (likelihood.py) -> the clipped objective (objective.py). The answers serve `updates`
steps, each with masks of its own, which the old likelihood has too. A group whose rewards are all equal, or of which one cannot
be computed, teaches nothing and is left out; a step without any group is skipped and counted, and too many end the run.

A answers of a micro-batch, G of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from llada_uni.backbone.forms import as_trained
from llada_uni.errors import UserError
from llada_uni.generation.unmasking import RULES
from llada_uni.image.codes import ImageCodes
from llada_uni.options import AtLeastOne, options
from llada_uni.training.language.stage import BackboneStage, MaskedBatch
from llada_uni.training.loop.logs import Sums, add_metrics
from llada_uni.training.loop.parallel import whole_weights
from llada_uni.training.loop.prefetch import seed_of
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss
from llada_uni.training.reward.anchor import AnchorOptions, anchor_loss
from llada_uni.training.reward.likelihood import Part, Scored, Written, trace_parts
from llada_uni.training.reward.network import NetworkOptions, NetworkStage
from llada_uni.training.reward.objective import advantages, clipped_objective, most_telling
from llada_uni.training.reward.prompts import Prompt, Prompts
from llada_uni.training.reward.rewards import Answer, Failed, Rewards
from llada_uni.training.reward.rollouts import Roller, Rollout, RolloutOptions

Clip = Annotated[float, Field(ge=0)]
_HELDOUT_SEED = 1  # of the order in which held-out prompts are taken


@options
class RewardOptions(NetworkOptions):
    """The options of the network (network.py), and:

    data: source of records (a file, a folder, or `NAME:...` of a plug-in) -> share. rewards: name -> weight (rewards.py);
    unfinished: the reward of a text that was cut off before its end, null: as judged. heldout: sources whose prompts are
    answered, greedily, at each evaluation, heldout_samples in all.
    prompts: in a micro-batch; group: answers to each; learned: of a group, the answers that are learned from, those whose
    rewards differ most (null: all): to draw an answer costs less than to learn from it; rollouts: how they are drawn
    (rollouts.py); updates: optimizer steps that learn from the same answers. clip: how far the ratio of likelihoods counts,
    below and above 1. kl: weight of the distance to the network that training began with; 0: it is not computed.
    anchor: ordinary records that are learned beside the answers (anchor.py).
    """

    data: dict[str, float] = field(default_factory=dict)
    rewards: dict[str, float] = field(default_factory=dict)
    unfinished: float | None = 0.0
    heldout: dict[str, float] | None = None
    heldout_samples: AtLeastOne = 64
    prompts: AtLeastOne = 8
    group: Annotated[int, Field(ge=2)] = 8
    updates: AtLeastOne = 1
    learned: Annotated[int, Field(ge=2)] | None = None
    rollouts: RolloutOptions = field(default_factory=RolloutOptions)
    clip: tuple[Clip, Clip] = (0.2, 0.2)
    kl: Annotated[float, Field(ge=0)] = 0.0
    anchor: AnchorOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise UserError("data is empty; allowed: at least one source of records with its share")
        if not self.rewards:
            raise UserError("rewards is empty; allowed: at least one name with its weight")
        if self.likelihood == "trace" and (self.rollouts.top_p, self.rollouts.top_k) != (1, 0):
            raise UserError("likelihood trace needs answers drawn from all of the distribution: rollouts.top_p 1 and top_k 0")

    def build(self, processes: Processes, seed: int) -> RewardStage:
        """The stage, with its first weights."""
        return RewardStage(self.first_model(seed), self, processes, seed)


class Asked(NamedTuple):
    """One micro-batch: prompts to be answered (none where earlier answers serve again), the seed of all its noise, and the
    records beside them (None: there are none)."""

    step: int
    micro_batch: int
    prompts: tuple[Prompt, ...]
    seed: int
    records: MaskedBatch | None


@dataclass(frozen=True)
class Group:
    """The answers to one prompt. prompt: its ids; image: whether they are codes; gains: advantages of the answers [G]."""

    prompt: tuple[int, ...]
    image: bool
    rollouts: tuple[Rollout, ...]
    gains: tuple[float, ...]


@dataclass
class Kept:
    """What a micro-batch learns from, for `updates` steps. seed: of the masks; old: log-likelihoods [A] for each of the steps
    by the network that answered (empty for one step, whose own they are); idle: no group teaches anything, so nothing counts.
    """

    seed: int
    groups: list[Group]
    idle: bool
    old: list[list[float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        groups = [[list(g.prompt), g.image, [r.to_json() for r in g.rollouts], list(g.gains)] for g in self.groups]
        return {"seed": self.seed, "idle": self.idle, "old": self.old, "groups": groups}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kept:
        groups = [Group(tuple(p), i, tuple(map(Rollout.from_json, r)), tuple(g)) for p, i, r, g in data["groups"]]
        return cls(data["seed"], groups, data["idle"], data["old"])


class RewardStage(NetworkStage):
    """Answers, and learns from how good they were."""

    options: RewardOptions

    def __init__(self, model: nn.Module, options: RewardOptions, processes: Processes, seed: int) -> None:
        super().__init__(model, options, processes, seed, options.kl > 0, options.rollouts.temperature)
        self.rewards = Rewards(options.rewards, options.unfinished)
        folder = options.init
        self.prompts = Prompts(options.data, folder, self.form, seed)
        self.heldout = Prompts(options.heldout, folder, self.form, _HELDOUT_SEED) if options.heldout else None
        self.roller = Roller(model, self.text, self.codes, self.defaults, options.rollouts)
        for name, image in (("text", False), ("image", True)):
            rule = self.roller.sampling(image).rule
            if options.likelihood == "trace" and RULES[rule].edits:
                fills = ", ".join(name for name, other in RULES.items() if not other.edits)
                raise UserError(f"likelihood trace cannot follow the rule {rule}, which edits; rollouts.{name}_rule: {fills}")
        anchor = options.anchor
        beside = None if anchor is None else anchor.stage(model, options.init, self.block, processes, seed)
        self._anchor = (beside,)  # a tuple: its weights are those of this stage
        self.kept: dict[int, Kept] = {}
        self.micro_batches = 1
        self.failure = ""

    @property
    def anchor(self) -> BackboneStage | None:
        """The stage that has the loss of the records beside the answers."""
        return self._anchor[0]

    def begin(self, micro_batches: int) -> None:
        self.micro_batches = micro_batches
        if self.anchor is not None:
            self.anchor.begin(micro_batches)

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Asked:
        options, seed = self.options, generators.python.getrandbits(62)
        records = self.anchor.batch(step, micro_batch, generators) if self.anchor is not None else None
        if step % options.updates:
            return Asked(step, micro_batch, (), seed, records)
        first = (step // options.updates * self.micro_batches + micro_batch) * options.prompts
        prompts = tuple(self.prompts.take(range(first, first + options.prompts)))
        return Asked(step, micro_batch, prompts, seed, records)

    def loss(self, batch: Asked) -> Loss:
        sums: Sums = {}
        turn = batch.step % self.options.updates
        if turn == 0:
            self.kept[batch.micro_batch] = self._answer(batch, sums)
        kept = self.kept[batch.micro_batch]
        scored = self.scored(kept, turn)
        new, entropy = self.likelihoods(scored)
        old = new.detach() if not kept.old else new.new_tensor(kept.old[turn])
        reference = self.reference_likelihoods(scored) if self.options.kl else None
        gains = new.new_tensor([gain for group in kept.groups for gain in group.gains])
        found = clipped_objective(new, old, reference, gains, scored.lengths, self.options.clip, self.options.kl)
        metrics: dict[str, tuple[float | Tensor, float | Tensor]] = {name: (s, count) for name, (s, count) in sums.items()}
        learned, total = float(len(gains)), found.total
        if self.anchor is not None and batch.records is not None and self.options.anchor is not None:
            mean, beside = anchor_loss(self.anchor, batch.records)
            total = total + self.options.anchor.weight * learned * mean
            metrics |= beside
        if kept.idle:
            return Loss(total * 0, 0.0, metrics)
        own: dict[str, tuple[float | Tensor, float | Tensor]] = {
            "clipped": (found.clipped, learned),
            "ratio": (found.ratios.sum(), learned),
            "entropy": (entropy.sum(), float(len(scored.at))),
        }
        if reference is not None:
            own["kl"] = (found.kl, learned)
        return Loss(total, learned, {**metrics, **own})

    # --- answers ---

    def _answer(self, batch: Asked, metrics: Sums) -> Kept:
        """The groups that teach something, of answers to all prompts; where none does, one of them, which does not count."""
        size, updates = self.options.group, self.options.updates
        prompts = [prompt for prompt in batch.prompts for _ in range(size)]
        seeds = [seed_of(batch.seed, number, 0) for number in range(len(prompts))]
        rollouts = self._rolled(prompts, seeds)
        groups, taught = [], []
        failed = equal = 0
        for number, prompt in enumerate(batch.prompts):
            made = rollouts[number * size : (number + 1) * size]
            rewards = self._rewards(prompt, made, metrics)
            failed += rewards is None
            groups.append(self._group(prompt, made, rewards or [0.0] * size))
            if rewards is not None and max(rewards) > min(rewards):
                taught.append(groups[-1])
            elif rewards is not None:
                equal += 1
        if not taught and equal:
            self.failure = f"the rewards of every group of {size} answers are equal"
        count = float(len(groups))
        shares = {"groups_failed": float(failed), "groups_equal": float(equal), "groups_used": float(len(taught))}
        add_metrics(metrics, {name: (value, count) for name, value in shares.items()})
        add_metrics(metrics, {"length": (float(sum(len(made.tokens) for made in rollouts)), float(len(rollouts)))})
        add_metrics(metrics, {"finished": (float(sum(made.finished for made in rollouts)), float(len(rollouts)))})
        add_metrics(metrics, {"evaluations": (float(sum(made.evaluations for made in rollouts)), float(len(rollouts)))})
        kept = Kept(batch.seed, taught or groups[:1], not taught)
        if updates > 1:
            with torch.no_grad(), as_trained():
                kept.old = [self.likelihoods(self.scored(kept, turn))[0].tolist() for turn in range(updates)]
        return kept

    def _group(self, prompt: Prompt, made: Sequence[Rollout], rewards: Sequence[float]) -> Group:
        """The answers that are learned from, with how much better each is than these are on average."""
        chosen = most_telling(rewards, self.options.learned or len(made))
        gains = advantages([rewards[i] for i in chosen])
        return Group(prompt.ids, prompt.grid is not None, tuple(made[i] for i in chosen), tuple(gains))

    def _rolled(self, prompts: Sequence[Prompt], seeds: Sequence[int] | None) -> list[Rollout]:
        """Answers by the network as it is, in the mode in which it answers."""
        training = self.model.training
        self.model.eval()
        try:
            with whole_weights(self):
                return self.roller.answer(prompts, seeds)
        finally:
            self.model.train(training)

    def answer_of(self, prompt: Prompt, made: Rollout) -> Answer:
        """What a reward function sees of an answer."""
        if prompt.grid is not None:
            codes = tuple(token - self.codes[0] for token in made.tokens)
            return Answer("", ImageCodes(codes, *prompt.grid), True, len(made.tokens))
        words = [token for token in made.tokens if self.text.is_text(token)]
        return Answer(self.text.decode(words), None, made.finished, len(made.tokens))

    def _rewards(self, prompt: Prompt, made: Sequence[Rollout], metrics: Sums) -> list[float] | None:
        """The rewards of a group; None where one of them failed."""
        rewards = []
        for one in made:
            try:
                reward, parts = self.rewards(prompt.record, self.answer_of(prompt, one))
            except Failed as failure:
                self.failure = str(failure)
                return None
            rewards.append(reward)
            add_metrics(metrics, {f"reward/{name}": (value, 1.0) for name, value in parts.items()})
        add_metrics(metrics, {"reward": (sum(rewards), float(len(rewards)))})
        return rewards

    # --- likelihoods ---

    def scored(self, kept: Kept, turn: int) -> Scored:
        """All answers that are kept, with the masks of one of the steps that learn from them."""
        number = 0
        noise = np.random.default_rng(seed_of(kept.seed, turn, 1))
        groups = []
        for group in kept.groups:
            written = []
            for made in group.rollouts:
                ids = np.array([*group.prompt, *made.tokens], np.int64)
                parts = self._parts(number, group, made, ids, noise)
                written.append(Written(number, len(group.prompt), ids, parts))
                number += 1
            groups.append(written)
        return self.packed(groups)

    def _parts(self, number: int, group: Group, made: Rollout, ids: np.ndarray, noise: np.random.Generator) -> list[Part]:
        options, prompt = self.options, len(group.prompt)
        if options.likelihood == "trace":
            return trace_parts(number, prompt, ids, made, self.block, self.text.mask_id, noise, options.levels)
        return self.bound_parts(number, prompt, ids, group.image, noise)

    # --- the loop's questions ---

    def why_nothing(self) -> str:
        return self.failure or "no group of answers has different rewards"

    def kept_state(self, micro_batch: int) -> Any:
        kept = self.kept.get(micro_batch)
        return None if kept is None or self.options.updates == 1 else kept.to_json()

    def load_kept_state(self, micro_batch: int, state: Any) -> None:
        if state is not None:
            self.kept[micro_batch] = Kept.from_json(state)

    def reader_state(self, micro_batch: int) -> dict[str, Any]:
        """That of the records beside the answers; prompts have their numbers from the step."""
        return {} if self.anchor is None else self.anchor.reader_state(micro_batch)

    def load_reader_state(self, micro_batch: int, state: dict[str, Any]) -> None:
        if self.anchor is not None and state:  # none: of a checkpoint without such records
            self.anchor.load_reader_state(micro_batch, state)

    def share_again(self, states: Mapping[int, dict[str, Any]], micro_batches: int) -> dict[int, dict[str, Any]]:
        if self.anchor is None:
            return super().share_again(states, micro_batches)
        return self.anchor.share_again(states, micro_batches)

    def evaluate(self, step: int) -> dict[str, float]:
        """The mean reward of greedy answers to the same held-out prompts each time, also of each reward and source."""
        if self.heldout is None:
            return {}
        sums: Sums = {}
        prompts = self.heldout.take(range(self.options.heldout_samples))
        for prompt, made in zip(prompts, self._rolled(prompts, None), strict=True):
            own: Sums = {}
            self._rewards(prompt, [made], own)
            add_metrics(sums, own)
            add_metrics(sums, {f"{prompt.source}/{name}": tuple(pair) for name, pair in own.items()})
            add_metrics(sums, {"length": (float(len(made.tokens)), 1.0)})
        return {name: float(value) / float(count) for name, (value, count) in sums.items() if count}
