"""What the clients' programs share: where the server is, a picture to show, and how a case is told of."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "examples"))  # clients run them, too

BASE = os.environ["BASE_URL"]
API = f"{BASE}/v1"
PROMPT = "a cat at the top left and a dog at the bottom right on green"
QUESTION = "what is at the top left?"


def drawn() -> str:
    """A picture of a cat and a dog, in base64."""
    body = json.dumps({"prompt": PROMPT, "seed": 1}).encode()
    request = urllib.request.Request(f"{API}/images/generations", body, {"content-type": "application/json"})
    data: str = json.load(urllib.request.urlopen(request, timeout=300))["data"][0]["b64_json"]
    return data


def uri() -> str:
    return f"data:image/png;base64,{drawn()}"


def is_png(data: str | None) -> bool:
    return data is not None and base64.b64decode(data)[:4] == b"\x89PNG"


def case(name: str, check: Callable[[], Any]) -> None:
    """Prints "ok NAME", or "no NAME: why" where the check raises or gives something false."""
    try:
        worked, why = bool(check()), "not what was expected"
    except Exception as error:
        worked, why = False, f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"ok {name}" if worked else f"no {name}: {why}", flush=True)
