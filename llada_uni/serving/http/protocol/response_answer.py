"""What /v1/responses answers: a `Response` of output items, or a stream of numbered events.

Text, images and calls of the model -> items `message`, `image_generation_call`, `reasoning` and `function_call` in the order
they came. Field names and the sequence of events are OpenAI's; the tests hold them against the types of its SDK.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from llada_uni.serving.http.protocol.usage import TokenDetails, TokenUsage

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(BaseModel):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[None] = []
    logprobs: list[None] = []


class ReasoningText(BaseModel):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputMessage(BaseModel):
    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


class OutputReasoning(BaseModel):
    """The reasoning text before an image."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    status: ItemStatus
    summary: list[None] = []
    content: list[ReasoningText]


class OutputImage(BaseModel):
    """result: the image in base64, null while it is drawn. seed, notices: as in /v1/images/generations."""

    type: Literal["image_generation_call"] = "image_generation_call"
    id: str
    status: Literal["in_progress", "generating", "completed", "failed"]
    result: str | None = None
    output_format: Literal["png", "jpeg", "webp"]
    size: str | None = None
    background: Literal["opaque"] = "opaque"
    revised_prompt: str | None = None
    seed: int
    notices: list[str] | None = None


class OutputCall(BaseModel):
    """A call of a function of the client's. arguments: JSON as text."""

    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


OutputItem = OutputMessage | OutputReasoning | OutputImage | OutputCall


class InputDetails(TokenDetails):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(TokenDetails):
    """reasoning_tokens: 0, as reasoning text is not counted apart."""

    reasoning_tokens: int = 0


class ResponseUsage(TokenUsage):
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class ResponseError(BaseModel):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Response(BaseModel):
    """seed: gives the same answer again. notices: what a client should know, such as that the answer is empty."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: dict[str, None] = {"effort": None, "summary": None}
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    temperature: float | None
    text: dict[str, Any] = {"format": {"type": "text"}}
    tool_choice: Literal["none", "auto", "required"] | dict[str, str]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None
    seed: int
    system_fingerprint: str
    notices: list[str] | None = None
    warnings: list[str] | None = None


class ResponseEvent(BaseModel):
    """One event of a stream: its type, its number, and the fields of its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int
