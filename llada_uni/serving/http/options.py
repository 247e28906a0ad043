"""How the HTTP side of a service behaves, apart from the model's own limits (`serving.limits`)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from llada_uni.errors import UserError
from llada_uni.serving.http.quota import Quota

KEY_VARIABLE = "LLADA_UNI_API_KEY"


@dataclass(frozen=True)
class ServerOptions:
    """api_keys: any of them opens the API, none at all leaves it open to everyone. allow_remote_images: pictures may be
    given as http(s) addresses, which the server then fetches. cors_origins: web pages of these origins may call the API
    from a browser ("*" for all). model_name: what clients call the model. lenient: fields that are unknown or not supported
    are left out of a request, with a warning in the answer, instead of refused. quotas: by key (`quota.py`); they need keys.

    Raises UserError for a blank key, origin or name.
    """

    api_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    allow_remote_images: bool = False
    cors_origins: tuple[str, ...] = ()
    model_name: str = "llada-uni"
    lenient: bool = False
    quotas: Mapping[str, Quota] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.quotas and not self.api_keys:
            raise UserError("quotas are for keys, and there is none: set LLADA_UNI_API_KEY")
        unknown = [key for key in self.quotas if key and int(key.split()[1]) > len(self.api_keys)]
        if unknown:
            raise UserError(f"there is a quota for {unknown[0]}, and there are {len(self.api_keys)} keys")
        for name, values in (("API key", self.api_keys), ("origin", self.cors_origins), ("model name", (self.model_name,))):
            if not all(value.strip() and value.isprintable() for value in values):
                raise UserError(f"the {name} is blank or holds line breaks: give printable characters")


def keys_from_environment() -> tuple[str, ...]:
    """The API keys in LLADA_UNI_API_KEY, with commas between them."""
    return tuple(key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip())
