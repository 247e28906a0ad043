"""LoRA on the backbone, through peft: small adapters are trained, the weights themselves stay as they are.

    model = add_lora(backbone, LoraOptions(rank=16, alpha=32))    # trained like the backbone itself
    save_adapter(model, "my-adapter"); save_backbone(merge_lora(model), "my-model")

Backbone -> the same network with low-rank products beside its matrices -> an adapter folder in peft's
format, or a plain Backbone with the products added in. Attention's projections are adapted as layers; the stacked experts as
parameters (peft's `target_parameters`), each expert with a product of its own.

Cost of adapted experts: peft adds the products to all E experts of a layer before each forward pass, so a layer holds a second
copy of its expert weights [E, I, D] until its backward pass is done, and the gradient of that copy meanwhile. Recompute
activations (parallel options) where that is too much, or adapt the attention alone: `experts=False`. Experts that stay
quantized (quantized_lora.py) have adapters of their own, without such a copy.

Axes: E experts, I inner features of an expert, D width. Source of the method: arXiv:2106.09685.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from llada_uni.backbone.model import Backbone
from llada_uni.backbone.quantized import scheme_of
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.weights import WeightFiles, check_shape
from llada_uni.options import AtLeastOne, options
from llada_uni.training.language.quantized_lora import QuantizedLoraExperts, adapt_quantized_experts
from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.sharded_load import own_rows

if TYPE_CHECKING:
    from peft import PeftModel

_PEFT, _NAME = "base_model.model.", "default"  # what peft puts before names; what it calls an adapter
_ATTENTION = ["attention.query_key_value", "attention.dense"]
_EMBEDDINGS, _HEAD = "word_embeddings", "lm_head"
_EXPERTS = ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"]


@options
class LoraOptions:
    """rank of the products, which are scaled by alpha / rank; dropout before them (attention only);
    attention, experts: what is adapted. embeddings, head: the vectors of the vocabulary, as read and as written, are trained
    whole beside the adapters and saved with them: new words need both.
    """

    rank: AtLeastOne = 16
    alpha: float = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention: bool = True
    experts: bool = True
    embeddings: bool = False
    head: bool = False

    def whole(self) -> list[str]:
        """The modules that are trained whole."""
        return [name for name, wanted in ((_EMBEDDINGS, self.embeddings), (_HEAD, self.head)) if wanted]

    def __post_init__(self) -> None:
        if not (self.attention or self.experts):
            raise UserError("lora has nothing to adapt; set attention or experts")
        if self.experts and self.dropout:
            raise UserError("lora dropout needs experts: false (the input of a stacked expert cannot be dropped)")


def add_lora(backbone: Backbone, options: LoraOptions, seed: int = 0) -> PeftModel:
    """The backbone with adapters that change nothing yet; only they want gradients.

    `backbone` itself is changed. The model answers to all that a Backbone answers to (`hidden`, `logits`, `routers`,
    `reset_load`, `config`). seed: of the starting values; on the meta device there are none before `start_adapters`.
    """
    from peft import LoraConfig, get_peft_model

    quantized = options.experts and scheme_of(backbone) is not None
    if quantized and not options.attention:
        raise UserError("adapters on quantized experts go with adapters on the attention: set lora.attention to true")
    if quantized:
        adapt_quantized_experts(backbone, options.rank, options.alpha)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # peft divides by it; any number will do
        lora_dropout=options.dropout,
        target_modules=_ATTENTION if options.attention else [],
        target_parameters=_EXPERTS if options.experts and not quantized else None,
        modules_to_save=options.whole() or None,
    )
    with torch.random.fork_rng(devices=[]):
        model = get_peft_model(backbone, config)
    for module in backbone.modules():
        if isinstance(module, QuantizedLoraExperts):  # peft froze what it did not make
            module.lora_A.requires_grad_(True)
            module.lora_B.requires_grad_(True)
    start_adapters(model, seed)
    return model


class Adapter(NamedTuple):
    """The two factors of one adapter, and the name of the weight that they add to (checkpoint/layout.py).

    down: [r * E, C], up: [R, r * E] for E stacked matrices [R, C] (E = 1: one matrix); scaling: of their product.
    """

    weight: str
    down: Tensor
    up: Tensor
    scaling: float


def adapters_of(model: nn.Module) -> Iterator[Adapter]:
    """Every adapter in a backbone, peft's on plain weights and ours on quantized experts."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    for name, module in model.named_modules():
        path = name.removeprefix(_PEFT).replace(".base_layer", "")
        if isinstance(module, QuantizedLoraExperts):
            for matrix in module.lora_A:
                yield Adapter(f"{path}.{matrix}", module.lora_A[matrix], module.lora_B[matrix], module.scaling)
        elif isinstance(module, LoraLayer):
            down, up = (cast(nn.Linear, factor[_NAME]).weight for factor in (module.lora_A, module.lora_B))
            weight = module.parameter_name if isinstance(module, ParamWrapper) else "weight"
            yield Adapter(f"{path}.{weight}", down, up, module.scaling[_NAME])


def trained_whole(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are trained beside the adapters, by their names in a plain backbone."""
    marks = (".modules_to_save.", f"{_NAME}.")
    return {
        name.removeprefix(_PEFT).replace("".join(marks), "."): parameter
        for name, parameter in model.named_parameters()
        if marks[0] in name
    }


@torch.no_grad()
def start_adapters(model: nn.Module, seed: int) -> None:
    """Gives adapters their first values, in place, and weights that are trained whole those of the frozen ones.

    The first factor is drawn as peft does (arXiv:2106.09685: uniform, as a linear layer's), from a seed and the name of the
    weight, so that it is the same in processes that hold parts of it, and on plain and on quantized experts; the second is
    zero. Nothing happens on the meta device.
    """
    for adapter in adapters_of(model):
        if not adapter.down.is_meta:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {adapter.weight}".encode()))
            reach = adapter.down.shape[1] ** -0.5
            whole = torch.empty(adapter.down.shape).uniform_(-reach, reach, generator=generator)
            local_part(adapter.down).copy_(whole[slice(*own_rows(adapter.down))])
            local_part(adapter.up).zero_()
    frozen = {name.removeprefix(_PEFT): parameter for name, parameter in model.named_parameters()}
    for name, parameter in trained_whole(model).items():
        if not parameter.is_meta:
            path, _, weight = name.rpartition(".")
            local_part(parameter).copy_(local_part(frozen[f"{path}.original_module.{weight}"]))


def load_trained(model: nn.Module, source: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts what `source` has trained into `model` (of the same options, on plain weights): its tensors in `state`, which go by
    the names of source's parameters. Everything else in `model` stays as it is."""
    names = {id(parameter): name for name, parameter in source.named_parameters()}
    wanted = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {adapter.weight: adapter for adapter in adapters_of(source)}
    trained = {}
    for adapter in adapters_of(model):
        mine = found[adapter.weight]
        trained[wanted[id(adapter.down)]] = state[names[id(mine.down)]]
        trained[wanted[id(adapter.up)]] = state[names[id(mine.up)]]
    whole = trained_whole(source)
    for weight, parameter in trained_whole(model).items():
        trained[wanted[id(parameter)]] = state[names[id(whole[weight])]]
    model.load_state_dict(trained, strict=False, assign=True)


def merge_lora(model: PeftModel) -> Backbone:
    """The plain backbone with the adapters added to its weights, and what was trained whole in its place. `model` is used
    up."""
    merged = model.merge_and_unload(safe_merge=True)
    return merged.eval().requires_grad_(False)


def save_adapter(model: PeftModel, folder: str | os.PathLike[str]) -> Path:
    """Writes the adapters in peft's format (adapter_config.json, adapter_model.safetensors), in one step."""
    with new_folder(folder, replaces=("adapter_config.json",)) as temporary:
        model.save_pretrained(str(temporary), save_embedding_layers=False)
    return Path(folder)


def load_adapter(backbone: Backbone, folder: str | os.PathLike[str], trainable: bool = False) -> PeftModel:
    """The backbone, of plain weights, with the adapters of a folder that `save_adapter` (or peft) wrote.

    UserError when the folder holds no adapter, or one of another network.
    """
    from peft import PeftModel

    if not (Path(folder) / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter (adapter_config.json is missing)")
    try:
        return PeftModel.from_pretrained(backbone, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the adapter in {folder} does not fit this backbone ({' '.join(str(error).split())[:160]})") from error


def read_adapter(config: BackboneConfig, folder: str | os.PathLike[str]) -> tuple[list[Adapter], dict[str, Tensor]]:
    """The adapters of a folder for a network of this config, and the weights that were trained whole, by their plain names;
    no memory for the network. UserError as for `load_adapter`."""
    from peft import PeftConfig, get_peft_model

    if not (Path(folder) / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter (adapter_config.json is missing)")
    with torch.device("meta"):
        model = get_peft_model(Backbone(config), PeftConfig.from_pretrained(str(folder)))
    names = {id(parameter): name.replace(f".{_NAME}", "") for name, parameter in model.named_parameters()}
    tensors = WeightFiles(Path(folder), "adapter_model.safetensors")

    def read(name: str, wanted: Tensor) -> nn.Parameter:
        if name not in tensors:
            raise UserError(f"the adapter in {folder} does not fit this backbone (it lacks {name})")
        check_shape(tensors.path, name, tuple(wanted.shape), tensors.shapes[name])
        return nn.Parameter(tensors.tensor(name), requires_grad=False)

    adapters = [
        one._replace(down=read(names[id(one.down)], one.down), up=read(names[id(one.up)], one.up))
        for one in adapters_of(model)
    ]
    return adapters, {name: read(_PEFT + name, parameter) for name, parameter in trained_whole(model).items()}
