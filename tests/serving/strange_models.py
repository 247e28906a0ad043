"""Model directories from strangers, each made to harm in one way: code, lies about sizes, files from elsewhere.

A sound tiny model's directory -> a copy of it with one thing changed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llada_uni.files import configs as config_files

Change = Callable[[Path, Path], None]  # (the copy, a file that must never appear)

PARTS = ("", "image_tokenizer", "decoder", "decoder-turbo", "vae")
WEIGHTS = {part: "diffusion_pytorch_model.safetensors" if part == "vae" else "model.safetensors" for part in PARTS}


class RunsWhenRead:
    """Pickled, it is an order to create a file, carried out by whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def harmful_pickle(marker: Path) -> bytes:
    return pickle.dumps(RunsWhenRead(marker))


def only_pickles(folder: Path, marker: Path) -> None:
    """Weights in every pickled form that loaders are known to fall back to; none in safetensors."""
    for part in PARTS:
        (folder / part / WEIGHTS[part]).unlink()
        for name in ("pytorch_model.bin", "model.bin", "model.pt", "model.pkl", "model.ckpt", WEIGHTS[part] + ".bin"):
            (folder / part / name).write_bytes(harmful_pickle(marker))


def pickles_beside(folder: Path, marker: Path) -> None:
    for part in PARTS:
        for name in ("pytorch_model.bin", "model.pt", "model.pkl", "training_args.bin", "optimizer.pt", "state.pickle"):
            (folder / part / name).write_bytes(harmful_pickle(marker))


def pickle_named_safetensors(part: str) -> Change:
    def change(folder: Path, marker: Path) -> None:
        (folder / part / WEIGHTS[part]).write_bytes(harmful_pickle(marker))

    return change


def pickle_as_code_features(folder: Path, marker: Path) -> None:
    (folder / "image_tokenizer" / "sigvq_embedding.pt").write_bytes(harmful_pickle(marker))


def remote_code(folder: Path, marker: Path) -> None:
    """Everything by which a directory can ask a loader to import its own Python."""
    code = f"open({str(marker)!r}, 'w').close()\nclass Model: pass\n"
    ask = {"auto_map": {name: "modeling_own.Model" for name in ("AutoConfig", "AutoModel", "AutoTokenizer")}}
    ask |= {"trust_remote_code": True, "custom_pipelines": {"own": {"impl": "modeling_own.Model"}}}
    for part in PARTS:
        for name in ("modeling_own.py", "__init__.py", "configuration_own.py", "setup.py", "conftest.py"):
            (folder / part / name).write_text(code)
        add_to_json(folder / part / "config.json", ask)
    for name in ("tokenizer_config.json", "generation_config.json"):
        add_to_json(folder / name, ask)
    (folder / "chat_template.jinja").write_text("{{ cycler.__init__.__globals__.os.system('touch " + str(marker) + "') }}")
    add_to_json(folder / "tokenizer_config.json", {"chat_template": (folder / "chat_template.jinja").read_text()})


def add_to_json(file: Path, more: dict[str, Any], inside: str | None = None) -> None:
    data = json.loads(file.read_text()) if file.is_file() else {}
    (data.setdefault(inside, {}) if inside else data).update(more)
    file.write_text(json.dumps(data))


def saying(file: str, inside: str | None = None, **more: Any) -> Change:
    return lambda folder, marker: add_to_json(folder / file, more, inside)


def text_of(file: str, content: str) -> Change:
    return lambda folder, marker: (folder / file).write_text(content) and None


def link(name: str, target: str) -> Change:
    def change(folder: Path, marker: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def header(part: str, edit: Callable[[dict[str, Any], int], tuple[bytes, int | None]]) -> Change:
    """A safetensors file with another header: `edit(header, bytes of data)` -> (new header, its stated length)."""

    def change(folder: Path, marker: Path) -> None:
        file = folder / part / WEIGHTS[part]
        whole = file.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        new, stated = edit(json.loads(whole[8 : 8 + length]), len(whole) - 8 - length)
        file.write_bytes(struct.pack("<Q", len(new) if stated is None else stated) + new + whole[8 + length :])

    return change


def first_tensor(**changes: Any) -> Callable[[dict[str, Any], int], tuple[bytes, int | None]]:
    def edit(table: dict[str, Any], size: int) -> tuple[bytes, int | None]:
        name = next(name for name in sorted(table) if name != "__metadata__")
        table[name] |= changes
        return json.dumps(table).encode(), None

    return edit


HUGE = 10**9
SLOW_BUT_POSSIBLE = ("edit_max_cells", "size_factor")  # pictures of thousands of patches
SIZES = (  # file, object inside, names of the fields that decide how large a network is built
    (
        "config.json",
        None,
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "num_experts moe_intermediate_size num_shared_experts image_token_offset first_k_dense_replace",
    ),
    ("image_tokenizer/config.json", "vision_config", "hidden_size intermediate_size depth patch_size in_channels num_heads"),
    ("image_tokenizer/config.json", "vq_config", "num_embeddings embed_dim latent_channels"),
    ("image_tokenizer/preprocessor_config.json", None, "patch_size size_factor understand_min_pixels edit_max_cells"),
    ("decoder-turbo/config.json", None, "dim n_layers n_refiner_layers in_channels n_heads axes_lens all_patch_size"),
    ("vae/config.json", None, "block_out_channels layers_per_block latent_channels in_channels norm_num_groups"),
)
DEEP = "[" * 200_000


def changes() -> dict[str, Change]:
    """Every attack by name. Those that begin with "harmless:" may be read; all others must be refused."""
    generation = "generation_config.json"
    found: dict[str, Change] = {
        "harmless: pickles beside the weights": pickles_beside,
        "harmless: code and requests to run it": remote_code,
        "harmless: a kernel to be fetched": saying(
            "image_tokenizer/config.json", "vision_config", _attn_implementation="somebody/kernel"
        ),
        "only pickles": only_pickles,
        "a pickle as code features": pickle_as_code_features,
        "an index that leads out": text_of(
            "model.safetensors.index.json", json.dumps({"weight_map": {"lm_head.weight": "../../../../etc/passwd"}})
        ),
        "an index of wrong types": text_of("model.safetensors.index.json", json.dumps({"weight_map": {"a": 3}})),
        "tokenizer: deep": text_of("tokenizer.json", DEEP),
        "tokenizer: a list": text_of("tokenizer.json", "[]"),
        "tokenizer: null": text_of("tokenizer.json", "null"),
        "tokenizer: no model": text_of("tokenizer.json", '{"added_tokens": []}'),
        "tokenizer: model of another type": text_of("tokenizer.json", '{"model": [], "added_tokens": {"a": 1}}'),
        "tokenizer: not UTF-8": lambda folder, marker: (folder / "tokenizer.json").write_bytes(b"\xff\xfe{}") and None,
        "tokenizer: ids beyond the vocabulary": more_token_ids,
    }
    for part in PARTS:
        where = f"{part}/" if part else ""
        config = f"{where}config.json"
        found |= {
            f"pickle named safetensors: {part or 'backbone'}": pickle_named_safetensors(part),
            f"config is deep: {part or 'backbone'}": text_of(config, DEEP),
            f"config is a list: {part or 'backbone'}": text_of(config, "[1]"),
            # Without a config there is no base decoder, and nothing asks for it.
            f"{'harmless: ' * (part == 'decoder')}config leads to a device: {part or 'backbone'}": link(config, "/dev/zero"),
            f"config leads out: {part or 'backbone'}": link(config, "/etc/passwd"),
            f"weights lead out: {part or 'backbone'}": link(f"{where}{WEIGHTS[part]}", "/etc/passwd"),
            f"header says it is huge: {part or 'backbone'}": header(part, lambda t, n: (json.dumps(t).encode(), 2**60)),
            f"header longer than the file: {part or 'backbone'}": header(part, lambda t, n: (json.dumps(t).encode(), 10**8)),
            f"header is deep: {part or 'backbone'}": header(part, lambda t, n: (DEEP.encode(), None)),
            f"tensor beyond the file: {part or 'backbone'}": header(part, first_tensor(data_offsets=[0, 2**40])),
            f"tensor of negative size: {part or 'backbone'}": header(part, first_tensor(data_offsets=[100, 0])),
            f"tensor too large to count: {part or 'backbone'}": header(part, first_tensor(shape=[2**40, 2**40])),
            f"tensor of another type: {part or 'backbone'}": header(part, first_tensor(dtype="F99")),
        }
    for file, inside, names in SIZES:
        for name in names.split():
            several = name in ("axes_lens", "all_patch_size", "block_out_channels")
            for word, value in (("huge", HUGE), ("largest", config_files._LARGEST.get(name, 10**5))):
                if word == "largest" and name in SLOW_BUT_POSSIBLE:
                    continue
                found[f"{word} {inside or file} {name}"] = saying(file, inside, **{name: [value] * 3 if several else value})
    found["many axes"] = saying("decoder-turbo/config.json", axes_dims=[4] * 10**6)
    found |= {
        "huge picture": saying(generation, "generate", height=32 * HUGE, width=32 * HUGE),
        "huge turbo_steps": saying(generation, "decode", turbo_steps=HUGE),
        "huge block_length": saying(generation, block_length=HUGE),
    }
    return found


def more_token_ids(folder: Path, marker: Path) -> None:
    """Words get ids that no row of the embedding has."""
    data = json.loads((folder / "tokenizer.json").read_text())
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = {token: number + 10**6 for token, number in vocab.items()}
    (folder / "tokenizer.json").write_text(json.dumps(data))


def make(sound: Path, change: Change, folder: Path, marker: Path) -> Path:
    shutil.copytree(sound, folder)
    change(folder, marker)
    return folder
