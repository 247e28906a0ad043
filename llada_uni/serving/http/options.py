"""How the HTTP side of a service behaves, apart from the model's own limits (`serving.limits`)."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from llada_uni.errors import UserError

KEY_VARIABLE = "LLADA_UNI_API_KEY"


@dataclass(frozen=True)
class ServerOptions:
    """api_keys: any of them opens the API, none at all leaves it open to everyone. allow_remote_images: pictures may be
    given as http(s) addresses, which the server then fetches. cors_origins: web pages of these origins may call the API
    from a browser ("*" for all). model_name: what clients call the model.

    Raises UserError for a blank key, origin or name.
    """

    api_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    allow_remote_images: bool = False
    cors_origins: tuple[str, ...] = ()
    model_name: str = "llada-uni"

    def __post_init__(self) -> None:
        for name, values in (("API key", self.api_keys), ("origin", self.cors_origins), ("model name", (self.model_name,))):
            if not all(value.strip() and value.isprintable() for value in values):
                raise UserError(f"the {name} is blank or holds line breaks: give printable characters")


def keys_from_environment() -> tuple[str, ...]:
    """The API keys in LLADA_UNI_API_KEY, with commas between them."""
    return tuple(key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip())
