"""The stage `backbone`: block diffusion on token records, for alignment, multi-task training, fine-tuning and LoRA alike.

What flows through: token shards -> records mixed by share and task (mixture.py) -> noised rows (data/masking.py) -> packed
sequences (data/packing.py) -> states and logits at the masked places only -> weighted cross-entropy (losses.py); behind each
step the routers are balanced (balance.py). The result is a model directory in the released layout.

S packed sequences, T places in each, M masked places.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import save_backbone
from llada_uni.config import BackboneConfig
from llada_uni.data.kinds import CONTEXT
from llada_uni.data.masking import Masker, MaskingOptions
from llada_uni.data.packing import Batch, Packer, pack
from llada_uni.data.shards import read_manifest
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json, write_json
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.language.balance import Balance
from llada_uni.training.language.initial_weights import fill_backbone, read_config
from llada_uni.training.language.lora import LoraOptions, add_lora, merge_lora, save_adapter
from llada_uni.training.language.losses import SCHEMES, chunked_cross_entropy, learnt_places, weigh
from llada_uni.training.language.mixture import Mixture
from llada_uni.training.language.token_weights import rarity_weights
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Loss, Objective
from llada_uni.training.recipes.sizes import sizes_of
from llada_uni.world.training.lookups import FITTED_ROWS, Held, LookUpOptions, fit_lookups
from llada_uni.world.training.named_codes import begin_as_words, named_codes

DTYPES = ("float32", "float16", "bfloat16")
GENERATION = "generation_config.json"


@dataclass
class BackboneOptions:
    """What is trained on what (arXiv:2604.20796, training).

    data: folder of token shards -> share; tasks: weights of tasks (None: by numbers of records). slots: put in by the recipe,
    from loop.micro_batches. heldout: a folder for evaluation, of which heldout_samples records are used.
    length: places of a packed sequence, clean and noised ones together. A slot holds `samples` records, in as many sequences
    as they take, or as many records as fit into `sequences` (one of the two is given).
    masking: masking.MaskingOptions. weighting: none | linear | inverse_root (losses.py). rarity: rare tokens count for more, by
    this power of their frequency (rarity.py). balance: step of the router bias, 0: off.
    sizes: a preset, or fields of config.json (sizes.py); init: a model directory to go on from, or a text-only checkpoint whose
    vocabulary is extended; without sizes the network is that of init, without init it starts from random values.
    named_codes: codes of the world's patch tokenizer begin as the words they stand for (named_codes.py; without init only).
    lookups: heads that begin as look-ups (lookups.py).
    lora: train adapters only; the export is merged, the adapter beside it. low_memory: build without memory, and let each
    process read its own part. chunk: logits of so many places are held at a time.
    generation: what generation_config.json is to hold (empty: that of init). dtype: of the exported weights.
    """

    data: dict[str, float]
    tasks: dict[str, float] | None = None
    slots: int = 1
    heldout: str | None = None
    heldout_samples: int = 64
    length: int = 256
    samples: int | None = None
    sequences: int | None = None
    masking: MaskingOptions = field(default_factory=MaskingOptions)
    weighting: str = "linear"
    rarity: float = 0.0
    balance: float = 0.002
    sizes: str | dict[str, Any] | None = None
    init: str | None = None
    named_codes: bool = False
    lookups: LookUpOptions = field(default_factory=LookUpOptions)
    lora: LoraOptions | None = None
    low_memory: bool = False
    chunk: int = 8192
    generation: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("data is empty; allowed: at least one folder with its share")
        if (self.samples is None) == (self.sequences is None):
            raise UserError("samples and sequences: give one of the two")
        if min(self.samples or 1, self.sequences or 1, self.chunk) < 1:
            raise UserError("samples, sequences and chunk must be at least 1")
        if self.sizes is None and self.init is None:
            raise UserError("sizes or init must be given: there is nothing to start from")
        if self.length <= self.masking.block:
            raise UserError(f"length is {self.length}; it must be more than a block, {self.masking.block}")
        for name, allowed in (("weighting", SCHEMES), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not 0 <= self.rarity <= 1:
            raise UserError(f"rarity is {self.rarity}; allowed: 0 to 1")
        if self.lora is not None and self.low_memory:
            raise UserError("lora and low_memory do not go together")
        if self.named_codes and self.init is not None:
            raise UserError("named_codes is for a network that starts from random values: leave init out")
        looks_up = self.lookups.fit != "no" or self.lookups.hold
        if (self.named_codes or looks_up) and (self.low_memory or self.lora is not None):
            raise UserError("named_codes and lookups do not go together with low_memory or lora")

    def config(self) -> BackboneConfig:
        """The config of the network; the data are looked at only for a vocabulary that `sizes` does not name."""
        if self.sizes is None:
            given = self._vocabulary()
            return read_config(self.init, given["vocab_size"], given["image_token_offset"])
        sizes = sizes_of(self.sizes)
        return BackboneConfig.from_json(sizes if "vocab_size" in sizes else {**self._vocabulary(), **sizes})

    def _vocabulary(self) -> dict[str, int]:
        folder = Path(next(iter(self.data)))
        manifest = read_manifest(folder)
        offset = manifest["image_token_offset"]
        pad_id = TextTokenizer.from_file(folder / "tokenizer.json").pad_id
        return {"vocab_size": offset + manifest["codebook_size"], "image_token_offset": offset, "pad_token_id": pad_id}

    def build_model(self) -> Backbone:
        """The network with random values (none on the meta device)."""
        return Backbone(self.config())

    def build(self, processes: Processes, seed: int) -> BackboneObjective:
        """The objective, with its first weights (with low_memory: on the meta device)."""
        with torch.device("meta"):
            model: nn.Module = self.build_model()
        if not self.low_memory:
            model = model.to_empty(device="cpu")
            fill_backbone(model, self.init, seed)
        if self.lora is not None:
            model = add_lora(model.requires_grad_(False), self.lora, seed)
        return BackboneObjective(model, self, processes, seed)


class BackboneObjective(Objective):
    """Weighted cross-entropy at masked places. model: a Backbone, or one with adapters."""

    def __init__(self, model: nn.Module, options: BackboneOptions, processes: Processes, seed: int) -> None:
        super().__init__(processes)
        self.model, self.options, self.seed = model, options, seed
        longest = options.length - options.masking.block  # so that a record and any one of its views fit into a sequence
        self.data = Mixture(options.data, options.tasks, longest, seed, options.slots)
        self.heldout = Mixture({options.heldout: 1.0}, None, longest, seed, 1) if options.heldout else None
        self.heldout_start = self.heldout.slot_state(0) if self.heldout else {}
        self.text = self.data.text
        self._check_vocabulary()
        self.masker = Masker(options.masking, self.text.mask_id, self.text.eos_id, options.length)
        self.balance = Balance(model, options.balance, self.processes)
        size = self.backbone.config.vocab_size
        self.rarity = rarity_weights(options.data, size, options.rarity) if options.rarity else None
        self._begin()
        self.held: Held | None = None
        self._last: Batch | None = None

    def _begin(self) -> None:
        """Names and look-ups, where the options want them; a checkpoint's weights are loaded over them."""
        options = self.options
        if not options.named_codes and options.lookups.fit == "no":
            return
        named = named_codes(self.text, self.data.image_token_offset, self.data.codebook_size)
        if options.named_codes:
            begin_as_words(self.backbone, named, self.seed)
        if options.lookups.fit != "no":
            fit_lookups(self.backbone, self._rows_to_fit(), named, self.text.mask_id, options.lookups)

    def _rows_to_fit(self) -> list[Tensor]:
        """Token rows of the data, every other one with its answer masked."""
        mixture = Mixture(self.options.data, self.options.tasks, self.options.length, self.seed, 1)
        rng, rows = random.Random(self.seed), []
        for number in range(FITTED_ROWS):
            record = mixture.draw(0, rng)
            row = torch.from_numpy(record.ids.astype("int64"))
            learnt = torch.from_numpy(record.kinds.astype("int64")) != CONTEXT
            rows.append(torch.where(learnt, self.text.mask_id, row) if number % 2 else row)
        return rows

    def _check_vocabulary(self) -> None:
        config = self.backbone.config
        for mixture in filter(None, (self.data, self.heldout)):
            end = mixture.image_token_offset + mixture.codebook_size
            if mixture.image_token_offset != config.image_token_offset or end > config.vocab_size:
                raise UserError(
                    f"the data has image codes {mixture.image_token_offset} to {end - 1}; "
                    f"the model has {config.image_token_offset} to {config.vocab_size - 1}"
                )

    @property
    def backbone(self) -> Backbone:
        """The network itself, adapters inside it or not."""
        return self.model if isinstance(self.model, Backbone) else self.model.get_base_model()

    def loss(self, step: int, slot: int, rng: random.Random) -> Loss:
        options = self.options
        if options.lookups.hold and self.held is None:
            self.held = Held(self.backbone, options.lookups)
        if options.samples is not None:
            batch = self._samples(self.data, slot, options.samples, rng)
        else:
            batch = self._sequences(slot, rng)
        self._last = batch
        return self._loss(batch)

    def _samples(self, data: Mixture, slot: int, count: int, rng: random.Random) -> Batch:
        """`count` records, in as many sequences as they take."""
        records = [data.draw(slot, rng) for _ in range(count)]
        rows = [row for r in records for row in self.masker.rows(r.ids, r.kinds, r.task, rng)]
        return pack(rows, self.options.length, self.text.pad_id)

    def _sequences(self, slot: int, rng: random.Random) -> Batch:
        """As many records as fit; the first that does not is put back, for the next step."""
        packer = Packer(self.options.length, self.options.sequences)
        while True:
            before = self.data.slot_state(slot)
            record = self.data.draw(slot, rng)
            if not packer.add(self.masker.rows(record.ids, record.kinds, record.task, rng)):
                self.data.load_slot_state(slot, before)
                return packer.batch(self.text.pad_id)

    def _loss(self, batch: Batch) -> Loss:
        places = learnt_places(batch)
        weights, divisor = weigh(batch, places, self.options.weighting)
        wanted = batch.targets.flatten()[places]
        if self.rarity is not None:
            weights = weights * self.rarity[wanted]
        device = self.backbone.lm_head.weight.device
        moved, at, targets = batch.to(device), places.to(device), wanted.to(device)
        hidden = self.model.hidden(moved.ids, moved.positions, moved.mask(), only=at)
        losses, right = chunked_cross_entropy(hidden, targets, self.model.logits, self.options.chunk)
        numbers = self._numbers(batch, places, losses.detach(), right)
        return Loss((losses * weights.to(device)).sum(), float(divisor), numbers)

    def _numbers(self, batch: Batch, places: Tensor, losses: Tensor, right: Tensor) -> dict[str, tuple[Any, float]]:
        """Sums and counts for the log; end-of-text filling is left out of them."""
        real = batch.weights.flatten()[places] == 1
        code = batch.targets.flatten()[places] >= self.backbone.config.image_token_offset
        names = sorted(set(batch.tasks))
        task_of = torch.tensor([names.index(task) for task in batch.tasks])[batch.segments.flatten()[places]]
        kinds = {"code_acc": (right, real & code), "text_acc": (right, real & ~code)}
        kinds |= {f"nll/{name}": (losses, real & (task_of == number)) for number, name in enumerate(names)}
        numbers: dict[str, tuple[Any, float]] = {}
        for name, (values, chosen) in kinds.items():
            numbers[name] = ((values * chosen.to(values.device)).sum(), float(chosen.sum()))
        used = float((batch.segments >= 0).sum())
        return {
            **{name: pair for name, pair in numbers.items() if pair[1]},
            "masked": (float(batch.weights.sum()), float(batch.learnable.sum())),
            "packed": (used, float(batch.ids.numel())),
            "tokens": (used, 0.0),
        }

    def after_step(self, step: int) -> dict[str, Any]:
        if self.held is not None:
            self.held.restore()
        return self.balance.after_step()

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss and the numbers of training on the same held-out records with the same masks each time."""
        if self.heldout is None:
            return {}
        self.heldout.load_slot_state(0, self.heldout_start)
        rng, sums = random.Random(0), {}
        count = min(self.options.samples or 8, self.options.heldout_samples)
        for _ in range(0, self.options.heldout_samples, count):
            with torch.no_grad():
                loss = self._loss(self._samples(self.heldout, 0, count, rng))
            for name, (value, weight) in {**loss.numbers, "loss": (loss.total, loss.weight)}.items():
                held = sums.setdefault(name, [0.0, 0.0])
                held[0], held[1] = held[0] + float(value), held[1] + weight
        return {name: value / weight for name, (value, weight) in sums.items() if weight}

    def slot_state(self, slot: int) -> dict[str, Any]:
        return self.data.slot_state(slot)

    def load_slot_state(self, slot: int, state: dict[str, Any]) -> None:
        self.data.load_slot_state(slot, state)

    def last_batch(self) -> dict[str, Tensor]:
        if self._last is None:
            return {}
        tensors = {f.name: getattr(self._last, f.name) for f in fields(self._last)}
        return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}

    def shard_units(self) -> list[nn.Module]:
        return list(self.backbone.model.layers)

    def materialise(self) -> None:
        fill_backbone(self.backbone, self.options.init, self.seed)
        self.balance.remember()

    def fingerprint(self) -> dict[str, Any]:
        lora = self.options.lora
        adapters = [lora.rank, lora.attention, lora.experts] if lora is not None else None
        return {"config": self.backbone.config.to_json(), "block": self.options.masking.block, "lora": adapters}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """config.json, the weights, tokenizer.json, generation_config.json; of adapters also `adapter/`."""
        options = self.options
        with torch.device("meta"):
            model: Any = Backbone(self.backbone.config)
            if options.lora is not None:
                model = add_lora(model, options.lora, self.seed)
        own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        model.load_state_dict(own, assign=True)
        if options.lora is not None:
            save_adapter(model, folder / "adapter")
            model = merge_lora(model)
        save_backbone(model, folder, dtype=getattr(torch, options.dtype))
        self.text.save(folder / "tokenizer.json")
        write_json(folder / GENERATION, {**self._generation(), "block_length": options.masking.block})

    def _generation(self) -> dict[str, Any]:
        options = self.options
        before = Path(options.init) / GENERATION if options.init else None
        if options.generation or before is None or not before.is_file():
            return options.generation
        return read_json(before)
