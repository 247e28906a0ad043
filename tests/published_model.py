"""A tiny model directory that looks as a published one does: its file names, its config keys, and Python that must not run.

`make_tiny_model` -> the same files under the published names, without a generation_config.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from llada_uni.files.model_dir import BACKBONE, DECODER, IMAGE_TOKENIZER, TURBO, VAE, find_weights
from llada_uni.text.tokenizer import END_OF_TEXT, TextTokenizer
from tests.tiny_model import make_tiny_model

TRAP = 'raise SystemExit("code of a model directory was run")\n'
SHARDS = 13
Naming = Callable[[Path], None]


def make_published_model(folder: Path, golden: Path, naming: str = "published") -> Path:
    """Writes the directory. naming: which of `NAMINGS` its weight files follow."""
    make_tiny_model(folder, golden)
    (folder / "generation_config.json").unlink()
    for file in ("modeling_llada2uni_moe.py", "configuration_llada2uni_moe.py", "image_tokenizer/processing.py"):
        (folder / file).write_text(TRAP)
    (folder / "README.md").write_text("a model")
    config = json.loads((folder / "config.json").read_text())
    rope = {name: config[name] for name in ("rope_theta", "partial_rotary_factor")}
    eos = TextTokenizer.from_file(folder / "tokenizer.json").eos_id
    config |= {
        "model_type": "llada2_moe_veomni",
        "auto_map": {
            "AutoConfig": "configuration_llada2uni_moe.LLaDA2MoeConfig",
            "AutoModelForCausalLM": "modeling_llada2uni_moe.LLaDA2MoeModelLM",
        },
        "eos_token_id": eos,
        "pad_token_id": eos,
        "rope_parameters": {"rope_type": "default", **rope},
        "sliding_window": None,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shaping = folder / "image_tokenizer" / "preprocessor_config.json"
    shaping.write_text(json.dumps(json.loads(shaping.read_text()) | {"merge_size": 2}))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "chat_template": "{{ x }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
    NAMINGS[naming](folder)
    return folder


def _published(folder: Path) -> None:
    """Until 12 May 2026."""
    _shard(folder, "model.safetensors", SHARDS)
    _rename(IMAGE_TOKENIZER.path(folder), "image_tokenizer.safetensors")
    _rename(DECODER.path(folder), "decoder_model.safetensors")
    _rename(TURBO.path(folder), "decoder_model.safetensors")


def _since_may(folder: Path) -> None:
    _shard(folder, "model.safetensors", SHARDS)
    _rename(IMAGE_TOKENIZER.path(folder), "image_tokenizer.safetensors")


def _all_sharded(folder: Path) -> None:
    _shard(folder, "model.safetensors", 3)
    _shard(IMAGE_TOKENIZER.path(folder), "image_tokenizer.safetensors", 2)
    _shard(DECODER.path(folder), "diffusion_pytorch_model.safetensors", 2)
    _shard(TURBO.path(folder), "model.safetensors", 2)
    _shard(VAE.path(folder), "diffusion_pytorch_model.safetensors", 2)


def _any_names(folder: Path) -> None:
    for part in (BACKBONE, IMAGE_TOKENIZER, DECODER, TURBO, VAE):
        _rename(part.path(folder), "weights-v2.safetensors")


NAMINGS: dict[str, Naming] = {
    "published": _published, "since May": _since_may, "sharded": _all_sharded, "any names": _any_names,
}  # fmt: skip


def _rename(folder: Path, name: str) -> None:
    find_weights(folder, ("model.safetensors",)).rename(folder / name)


def _shard(folder: Path, name: str, count: int) -> None:
    """The weights of a folder as `count` shards with an index."""
    single = find_weights(folder, ("model.safetensors",))
    tensors = load_file(single)
    single.unlink()
    where = {tensor: f"{name.removesuffix('.safetensors')}-{i % count + 1:05}-of-{count:05}.safetensors" for i, tensor in
             enumerate(tensors)}  # fmt: skip
    for file in set(where.values()):
        save_file({tensor: tensors[tensor] for tensor in where if where[tensor] == file}, folder / file)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of a directory with the hash of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
