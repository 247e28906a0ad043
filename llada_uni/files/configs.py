"""Reading the JSON files of a model directory, which a stranger may have written.

Path -> text of bounded length from a regular file -> a JSON object whose sizes are possible.
The bounds lie far above any network of this family. They keep a line in a config from asking for more memory or
time than the machine has before its weights, which would show the lie, are looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError

MAX_BYTES = 64 * 2**20  # of one text file; the released tokenizer.json has 12 MB
_LARGEST = {  # what a field of this name may say at most, wherever it stands
    **dict.fromkeys(("num_hidden_layers", "depth", "n_layers", "n_refiner_layers"), 1024),
    **dict.fromkeys(("layers_per_block", "spatial_merge_size"), 64),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "n_heads", "n_kv_heads"), 4096),
    **dict.fromkeys(("num_experts", "num_shared_experts"), 4096),
    **dict.fromkeys(("hidden_size", "intermediate_size", "moe_intermediate_size", "head_dim", "dim"), 2**17),
    **dict.fromkeys(("cap_feat_dim", "embed_dim", "latent_channels", "block_out_channels", "axes_dims"), 2**17),
    **dict.fromkeys(("vocab_size", "num_embeddings", "image_token_offset", "max_position_embeddings"), 2**24),
    **dict.fromkeys(("in_channels", "out_channels"), 1024),
    **dict.fromkeys(("patch_size", "all_patch_size", "all_f_patch_size", "size_factor"), 256),
    **{"image_size": 2**14, "sample_size": 2**14, "axes_lens": 2**17, "edit_max_cells": 2**12},
    **dict.fromkeys(("understand_min_pixels", "understand_max_pixels", "understand_max_pixels_multi"), 2**26),
}
_MAX_LIST = 64  # entries of such a field that is a list
MAX_LAYERS_OF_EXPERTS = 2**18  # layers x experts: each pair has tensors with names of their own


def read_text(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a regular file of at most 64 MiB (a device or a pipe might never end), without a byte order mark.
    UserError otherwise.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"there is no file {path}")
    if not path.is_file():
        raise UserError(f"{path} cannot be read: it is no ordinary file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is too large; allowed: at most {MAX_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file; UserError when there is none, or when it states impossible sizes."""
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise UserError(f"{path} cannot be read as JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(data).__name__}")
    check_sizes(data, path)
    return data


def check_sizes(config: Mapping[str, Any], where: object) -> None:
    """UserError naming the first field whose size no network could have."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(value, where)
        elif name in _LARGEST:
            sizes = value if isinstance(value, list) else [value]
            if len(sizes) > _MAX_LIST:
                raise UserError(f"{where}: {name} has {len(sizes)} entries; allowed: at most {_MAX_LIST}")
            for size in sizes:
                if isinstance(size, int | float) and not size <= _LARGEST[name]:
                    raise UserError(f"{where}: {name} is {size}; allowed: at most {_LARGEST[name]}")
    layers, experts = config.get("num_hidden_layers"), config.get("num_experts")
    if isinstance(layers, int) and isinstance(experts, int) and layers * experts > MAX_LAYERS_OF_EXPERTS:
        raise UserError(f"{where}: {layers} layers of {experts} experts; allowed: at most {MAX_LAYERS_OF_EXPERTS} experts")
