"""Tokens of images and of /v1/responses: text and codes of images apart, in OpenAI's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel

from llada_uni.results import Usage


class TokenDetails(BaseModel):
    """Of what kind tokens are: text, and codes of images."""

    text_tokens: int
    image_tokens: int


class TokenUsage(BaseModel):
    """Tokens read and made; a route may say more in its details."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: TokenDetails
    output_tokens_details: TokenDetails

    @classmethod
    def of(cls, usages: Sequence[Usage]) -> Self:
        """Of all results of one answer together."""
        total = Usage.together(usages)
        given, made = total.prompt_image_tokens, total.completion_image_tokens
        return cls.model_validate(
            {
                "input_tokens": total.prompt_tokens,
                "output_tokens": total.completion_tokens,
                "total_tokens": total.total_tokens,
                "input_tokens_details": {"text_tokens": total.prompt_tokens - given, "image_tokens": given},
                "output_tokens_details": {"text_tokens": total.completion_tokens - made, "image_tokens": made},
            }
        )
