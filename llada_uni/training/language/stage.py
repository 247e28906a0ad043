"""The stage `backbone`: block diffusion on token records, for alignment, multi-task training, fine-tuning and LoRA alike.

Token shards -> records mixed by share and task (mixture.py) -> noised rows (data/masking.py) -> packed
sequences (data/packing.py) with a weight for every masked position -> states and logits at the masked positions only ->
weighted cross-entropy (losses.py); behind each step the routers are balanced (balance.py). The result is a model directory in
the released layout.

S packed sequences, T positions in each, M masked positions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.backbone.quantized import scheme_of
from llada_uni.checkpoint.load import load_backbone
from llada_uni.config import BackboneConfig
from llada_uni.data.masking import Masker, MaskingOptions, Row
from llada_uni.data.packing import Batch, pack, to_batch
from llada_uni.data.reader import Part
from llada_uni.data.shards import NO_TEXT, Record, read_manifest
from llada_uni.data.tokens import without_text
from llada_uni.errors import UserError
from llada_uni.files.shipped import named_model
from llada_uni.options import AtLeastOne, Share, options
from llada_uni.text.tokenizer import UNCONDITION, TextTokenizer
from llada_uni.training.language.balance import Balance
from llada_uni.training.language.correction import CorrectionOptions, correction_metrics, fill_with_own
from llada_uni.training.language.exported import export_language_model, export_quantized, generation_of
from llada_uni.training.language.initial_weights import fill_backbone, read_config
from llada_uni.training.language.lora import LoraOptions, add_lora, start_adapters
from llada_uni.training.language.losses import Scheme, chunked_cross_entropy, frequency_weights, masked_positions, weigh
from llada_uni.training.language.mixture import Mixture
from llada_uni.training.language.operations import operations
from llada_uni.training.language.preview import drawn_sheet
from llada_uni.training.language.unseen import warn_of_unseen
from llada_uni.training.language.waiting import WaitingRows
from llada_uni.training.loop.logs import Sums, add_metrics
from llada_uni.training.loop.prefetch import to_device
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage
from llada_uni.training.recipes.sizes import sizes_of

_WAITING = ""


@options
class BackboneOptions:
    """What is trained on what (arXiv:2604.20796, training).

    data: folder of token shards -> share; tasks: weights of tasks (None: by numbers of records). heldout: a folder for
    evaluation, of which heldout_samples records are used; heldout_share: or so much of `data`, which is then not trained on.
    preview: a run or model directory with a decoder, by which held-out
    drawings of the backbone are shown (loop.samples_every).
    length: positions of a packed sequence, clean and noised ones together. A micro-batch holds `samples` records, in as many
    sequences as they take, or `sequences` sequences as full as a small stock of records fills them: what does not fit waits for
    the next step (waiting.py). One of the two is given.
    masking: masking.MaskingOptions. correction: some masks are filled with the model's own proposals, which are learned to be
    taken back where they are wrong (correction.py). weighting: none | linear | inverse_root (losses.py). frequency_weighting: a
    token counts for its frequency to the power of minus this: rare ones count for more (losses.py). balance: step of the router
    bias, 0: off.
    sizes: a preset, or fields of config.json (sizes.py); init: a model directory to go on from, or a text-only checkpoint whose
    vocabulary is extended; without sizes the network is that of init, without init it starts from random values.
    lora: train adapters only; the export is merged, the adapter beside it. quantization: with lora, the experts of `init` stay
    quantized while the adapters are trained, in this format or as `init` stores them ("stored"; ours, or a released FP8
    directory); the export is rounded again. frozen_dtype: of the other weights that are not trained then. low_memory: build
    without memory, and let each process read its own part. chunk: logits of so many positions are held at a time.
    generation: what generation_config.json is to hold (empty: that of init). dtype: of the exported weights.
    """

    data: dict[str, float]
    tasks: dict[str, float] | None = None
    heldout: str | None = None
    heldout_samples: int = 64
    heldout_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    preview: str | None = None
    length: int = 256
    samples: AtLeastOne | None = None
    sequences: AtLeastOne | None = None
    masking: MaskingOptions = field(default_factory=MaskingOptions)
    correction: CorrectionOptions | None = None
    weighting: Scheme = "linear"
    frequency_weighting: Share = 0.0
    balance: float = 0.002
    sizes: str | dict[str, Any] | None = None
    init: str | None = None
    lora: LoraOptions | None = None
    quantization: Literal["stored", "int8", "int4", "float8"] | None = None
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    low_memory: bool = False
    chunk: AtLeastOne = 8192
    generation: dict[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        if self.init is not None:
            self.init = str(named_model(self.init))
        if not self.data:
            raise UserError("data is empty; allowed: at least one folder with its share")
        if (self.samples is None) == (self.sequences is None):
            raise UserError("samples and sequences: give one of the two")
        if self.sizes is None and self.init is None:
            raise UserError("sizes or init must be given: there is nothing to start from")
        if self.heldout and self.heldout_share:
            raise UserError("heldout and heldout_share: give one of the two")
        if self.length <= self.masking.block:
            raise UserError(f"length is {self.length}; it must be more than a block, {self.masking.block}")

        if self.quantization is not None and (self.lora is None or self.init is None or self.sizes is not None):
            raise UserError("quantization is for lora on an init of its own sizes: quantized weights are not trained")
        if self.quantization is not None and self.low_memory:
            raise UserError("low_memory is not for quantization: quantized experts are mapped from their files anyway")

    def config(self) -> BackboneConfig:
        """The config of the network; the data are looked at only for a vocabulary that `sizes` does not name."""
        if self.sizes is None:
            assert self.init is not None  # one of the two is there (__post_init__)
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

    def build(self, processes: Processes, seed: int) -> BackboneStage:
        """The stage, with its first weights (with low_memory: on the meta device)."""
        return BackboneStage(self.first_model(seed), self, processes, seed)

    def first_model(self, seed: int) -> nn.Module:
        """The network with its first weights and its adapters (with low_memory: on the meta device)."""
        if self.quantization is not None:
            return self._quantized_model(seed)
        with torch.device("meta"):
            model = self.build_model()
        if not self.low_memory:
            model = model.to_empty(device="cpu")
            fill_backbone(model, self.init, seed)
        return model if self.lora is None else add_lora(model.requires_grad_(False), self.lora, seed)


    def _quantized_model(self, seed: int) -> nn.Module:
        """Adapters on quantized experts; the other weights in `frozen_dtype`."""
        assert self.init is not None and self.lora is not None  # __post_init__
        wanted = self.config()
        stored = None if self.quantization == "stored" else self.quantization
        model = load_backbone(self.init, dtype=getattr(torch, self.frozen_dtype), quantization=stored)
        if scheme_of(model) is None:
            raise UserError(f"the experts of {self.init} are plain; quantization: int8, int4 or float8 makes them small")
        if model.config.vocab_size != wanted.vocab_size:
            raise UserError(
                f"{self.init} has {model.config.vocab_size} tokens, the data {wanted.vocab_size}: extend it by a stage without "
                "quantization"
            )
        return add_lora(model, self.lora, seed)


class MaskedBatch(NamedTuple):
    """One micro-batch: packed sequences and what is asked of them.

    at int64 [M]: the masked positions, among the S * T flattened ones; targets int64 [M]; weights float32 [M] of their losses,
    whose sum is divided by `divisor`. counted: metric -> bool [M], the positions it is a mean over; amounts: metrics of the
    batch itself.
    """

    packed: Batch
    at: Tensor
    targets: Tensor
    weights: Tensor
    divisor: float
    counted: dict[str, Tensor]
    amounts: dict[str, tuple[float, float]]


class BackboneStage(Stage):
    """Weighted cross-entropy at masked positions. model: a Backbone, or one with adapters."""

    model: Any  # peft's wrapper hands on what it does not know

    def __init__(self, model: nn.Module, options: BackboneOptions, processes: Processes, seed: int) -> None:
        super().__init__(processes)
        self.model, self.options, self.seed = model, options, seed
        # So that a record and any one of its views fit into a sequence.
        self.longest = longest = options.length - options.masking.block
        every = round(1 / options.heldout_share) if options.heldout_share else 0
        self.data = Mixture(options.data, options.tasks, longest, seed, Part("train", every))
        self.heldout: Mixture | None = None
        if options.heldout:
            self.heldout = Mixture({options.heldout: 1.0}, None, longest, seed)
        elif every:
            self.heldout = Mixture(options.data, options.tasks, longest, seed, Part("held", every))
        self.heldout_start = self.heldout.state(0) if self.heldout else {}
        self.text = self.data.text
        self.uncondition = self.text.encode(UNCONDITION)
        self._check_vocabulary()
        self.masker = Masker(options.masking, self.text.mask_id, self.text.eos_id, options.length)
        self.waiting = WaitingRows(self.data, lambda record, rng: self._masked(self._shown(record, rng), rng))
        self.balance = Balance(model, options.balance, self.processes)
        size = self.backbone.config.vocab_size
        power = options.frequency_weighting
        self.token_weights = frequency_weights(options.data, size, power) if power else None

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

    def begin(self, micro_batches: int) -> None:
        self.data.share_out(micro_batches)
        lora = self.options.lora
        if lora is not None and not (lora.embeddings and lora.head):
            warn_of_unseen(self.backbone, self.text, self.options.data, self.processes.is_main)

    def batch(self, step: int, micro_batch: int, generators: Generators) -> MaskedBatch:
        options = self.options
        if options.samples is not None:
            return self._asked(self._samples(self.data, micro_batch, options.samples, generators.python))
        return self._asked(self._sequences(micro_batch, generators.python))

    def _samples(self, data: Mixture, micro_batch: int, count: int, rng: random.Random) -> Batch:
        """`count` records, in as many sequences as they take."""
        records = [self._shown(data.draw(micro_batch, rng), rng) for _ in range(count)]
        rows = [row for record in records for row in self._masked(record, rng)]
        return pack(rows, self.options.length, self.text.pad_id)

    def _shown(self, record: Record, rng: random.Random) -> Record:
        """The record, now and then without the user's text. One that would become too long keeps it."""
        share = self.options.masking.unconditional
        if share and record.text != NO_TEXT and rng.random() < share:
            bare = without_text(record, self.uncondition)
            return bare if len(bare.ids) <= self.longest else record
        return record

    def _masked(self, record: Record, rng: random.Random) -> list[Row]:
        return self.masker.rows(record.ids, record.kinds, record.task, rng)

    def _sequences(self, micro_batch: int, rng: random.Random) -> Batch:
        """`sequences` sequences, filled with rows that waited and with new ones."""
        assert self.options.sequences is not None  # samples or sequences is there
        members = self.waiting.fill(micro_batch, self.options.sequences, self.options.length, rng)
        return to_batch(members, self.options.length, self.text.pad_id)

    def _asked(self, packed: Batch) -> MaskedBatch:
        """Which positions are learned, how much each counts, and what is measured at which; end-of-text filling is measured at
        none."""
        at = masked_positions(packed)
        weights, divisor = weigh(packed, at, self.options.weighting)
        targets = packed.targets.flatten()[at]
        if self.token_weights is not None:
            weights = weights * self.token_weights[targets]
        real, code = packed.weights.flatten()[at] == 1, targets >= self.backbone.config.image_token_offset
        names = sorted(set(packed.tasks))
        task_of = torch.tensor([names.index(task) for task in packed.tasks])[packed.segments.flatten()[at]]
        counted = {"code_acc": real & code, "text_acc": real & ~code}
        counted |= {f"nll/{name}": real & (task_of == number) for number, name in enumerate(names)}
        used = float((packed.segments >= 0).sum())
        amounts = {
            "masked": (float(packed.weights.sum()), float(packed.learnable.sum())),
            "packed": (used, float(packed.ids.numel())),
            "tokens": (used, 0.0),
        }
        counted = {name: chosen for name, chosen in counted.items() if chosen.any()}
        return MaskedBatch(packed, at, targets, weights, float(divisor), counted, amounts)

    def loss(self, batch: MaskedBatch) -> Loss:
        packed, correction, filled = batch.packed, self.options.correction, None
        if correction is not None:
            packed, filled = fill_with_own(self.model, packed, batch.at, self.text.mask_id, self.options.chunk, correction)
        hidden = self.model.hidden(packed.ids, packed.positions, packed.mask(), only=batch.at)
        losses, right = chunked_cross_entropy(hidden, batch.targets, self.model.logits, self.options.chunk)
        metrics: dict[str, tuple[float | Tensor, float | Tensor]] = {}
        for name, chosen in batch.counted.items():
            values = right if name.endswith("_acc") else losses.detach()
            metrics[name] = ((values * chosen).sum(), chosen.sum())
        if filled is not None and filled.any():
            metrics |= correction_metrics(filled, packed.ids.flatten()[batch.at], batch.targets, right)
        return Loss((losses * batch.weights).sum(), batch.divisor, {**metrics, **batch.amounts})

    def operations(self, batch: MaskedBatch) -> float:
        tokens = int(batch.amounts["tokens"][0])
        return operations(self.backbone.config, tokens, len(batch.at), self.options.lora is None)

    def after_step(self, step: int) -> dict[str, Any]:
        return self.balance.after_step()

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss and the metrics of training on the same held-out records with the same masks each time."""
        if self.heldout is None:
            return {}
        self.heldout.load_state(0, self.heldout_start)
        rng, sums = random.Random(0), Sums()
        count = min(self.options.samples or 8, self.options.heldout_samples)
        for _ in range(0, self.options.heldout_samples, count):
            batch = self._asked(self._samples(self.heldout, 0, count, rng))
            with torch.no_grad():
                loss = self.loss(to_device(batch, self.processes.torch_device))
            add_metrics(sums, {**loss.metrics, "loss": (loss.total, loss.weight)})
        return {name: float(value) / float(weight) for name, (value, weight) in sums.items() if weight}

    @torch.no_grad()
    def pictures(self, step: int) -> dict[str, np.ndarray]:
        """What held-out records show above what the backbone draws for their words."""
        options = self.options
        if self.heldout is None or options.preview is None:
            return {}
        self.heldout.load_state(0, self.heldout_start)
        rng = random.Random(0)
        records = (self.heldout.draw(0, rng) for _ in range(options.heldout_samples))
        device = self.processes.torch_device
        return drawn_sheet(self.backbone, records, options.masking.block, self.text.mask_id, options.preview, device)

    def reader_state(self, micro_batch: int) -> dict[str, Any]:
        """Where each folder's reader stands; with `sequences` also what waits (under a name that no folder has)."""
        state = self.data.state(micro_batch)
        return state if self.options.sequences is None else {**state, _WAITING: self.waiting.state(micro_batch)}

    def load_reader_state(self, micro_batch: int, state: dict[str, Any]) -> None:
        waiting = state.get(_WAITING, [])  # checkpoints of before 0.4 have none
        self.data.load_state(micro_batch, {folder: place for folder, place in state.items() if folder != _WAITING})
        self.waiting.load_state(micro_batch, waiting)

    def share_again(self, states: Mapping[int, dict[str, Any]], micro_batches: int) -> dict[int, dict[str, Any]]:
        """What waits is drawn again with its micro-batch's next records."""
        return dict.fromkeys(range(micro_batches), self.data.share_again(list(states.values()), micro_batches))

    def shard_units(self) -> list[nn.Module]:
        return list(self.backbone.model.layers)

    def materialize(self) -> None:
        fill_backbone(self.backbone, self.options.init, self.seed)
        if self.options.lora is not None:
            start_adapters(self.model, self.seed)
        self.balance.remember()

    def fingerprint(self) -> dict[str, Any]:
        lora = self.options.lora
        adapters = [lora.rank, lora.attention, lora.experts, *lora.whole()] if lora is not None else None
        scheme = scheme_of(self.backbone)
        quantized = {} if scheme is None else {"quantization": scheme.to_json()}
        return {"config": self.backbone.config.to_json(), "block": self.options.masking.block, "lora": adapters, **quantized}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """See `export_language_model`; where the experts are quantized, `export_quantized`."""
        options, backbone = self.options, self.backbone
        generation = {**(options.generation or generation_of(options.init)), "block_length": options.masking.block}
        scheme = scheme_of(backbone)
        if scheme is not None:
            assert options.init is not None and options.lora is not None  # of quantized weights (BackboneOptions)
            export_quantized(folder, state, self.model, options.init, options.lora, scheme, self.text, generation)
            return
        export_language_model(
            folder, state, backbone.config, options.lora, getattr(torch, options.dtype), self.text, generation, self.seed
        )
