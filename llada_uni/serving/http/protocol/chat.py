"""Bodies of /v1/chat/completions: conversations in, an answer (or chunks of one) out.

Messages of words and pictures (data URIs) -> `ChatRequest`; words and pictures of the model ->
`ChatCompletion`, or `ChatChunk` after `ChatChunk` in a stream. An answer with pictures has for content a list of parts
in the order they came, or (`images_in`) words for content and the pictures beside them; a request may send back either.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from llada_uni.generation.values import MOST_CHOICES, MOST_STOPS
from llada_uni.requests import Chat, Story, Understand
from llada_uni.serving.http.protocol.common import Body, GivenOnly, Ignored, Size, Streaming, Unsupported, Warned
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.forms import (
    MOST_TOOLS,
    Call,
    CallDelta,
    EarlierCall,
    FunctionChoice,
    FunctionTool,
    ResponseFormat,
)
from llada_uni.serving.http.protocol.progress import ChatPartialImageEvent, ProgressEvent
from llada_uni.serving.http.protocol.settings import SettingsBody, optional_fields, takes

# --- the request ---


class ImageUrl(Body):
    url: str = Field(description="A data URI (data:image/png;base64,...); http(s) only where the server allows it.")
    detail: Ignored = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl


class BesideImage(ImagePart):
    """A picture that stands beside the words, as our answers have it with `images_in`."""

    index: int | None = Field(default=None, description="Accepted, without effect.")
    offset: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="After how many characters of the content it stands; default: after all."
    )


def _kind_of_part(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return f"<{kind}>" if kind in ("text", "image_url") else None


def _words_or_list(value: Any) -> str | None:
    return "<words>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message='must be {"type": "text", "text": ...} or {"type": "image_url", "image_url": {"url": ...}}',
    ),
]
Content = Annotated[
    Annotated[str, Tag("<words>")] | Annotated[list[Part], Tag("<list>")],
    Discriminator(_words_or_list, custom_error_type="content", custom_error_message="must be a string or a list of parts"),
]
Stop = Annotated[
    Annotated[str, Tag("<words>")] | Annotated[list[str], Field(max_length=MOST_STOPS), Tag("<list>")],
    Discriminator(_words_or_list, custom_error_type="stop", custom_error_message="must be a string or a list of strings"),
]

Nothing = Annotated[Any, Unsupported("answers hold words and pictures only", [])]


class Message(Body):
    """One turn. The fields after content are those of our own answers, so that these can be sent back as they came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = Field(default=None, validate_default=True)
    images: list[BesideImage] | None = Field(default=None, description="Of an assistant's turn, beside its words.")
    name: Ignored = None
    reasoning_content: Ignored = None
    refusal: Ignored = None
    notices: list[str] | None = Field(default=None, description="Accepted, without effect.")
    annotations: Nothing = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: list[EarlierCall] | None = Field(default=None, description="Of an assistant's turn: what it called.")
    tool_call_id: str | None = Field(default=None, description="Of the role tool: the call that its content answers.")

    @field_validator("content")
    @classmethod
    def _has_content(cls, content: Any, info: ValidationInfo) -> Any:
        if content is None and info.data.get("role") != "assistant":
            raise ValueError("must be a string or a list of parts, not null")
        return content

    @field_validator("images")
    @classmethod
    def _beside_words(cls, images: Any, info: ValidationInfo) -> Any:
        if images and (info.data.get("role") != "assistant" or isinstance(info.data.get("content"), list)):
            raise ValueError("is for an assistant's turn whose content is a string; else images are parts of the content")
        return images

    def image_urls(self) -> list[tuple[str, str]]:
        """(where it stands in the message, URL) of its pictures, in the order of `parts`."""
        if isinstance(self.content, list):
            shown = [(f"content[{place}]", part) for place, part in enumerate(self.content) if isinstance(part, ImagePart)]
            return [(place, part.image_url.url) for place, part in shown]
        return [(f"images[{place}]", image.image_url.url) for place, image in enumerate(self.images or ())]

    def parts(self) -> list[TextPart | ImagePart]:
        """Words and pictures in order."""
        if isinstance(self.content, list):
            return self.content
        parts: list[TextPart | ImagePart] = []
        words, said = self.content or "", 0
        for image in self.images or ():
            until = len(words) if image.offset is None else max(image.offset, said)
            parts += [TextPart(type="text", text=words[said:until])] if words[said:until] else []
            parts.append(image)
            said = until
        return [*parts, TextPart(type="text", text=words[said:])] if words[said:] or not parts else parts


class StreamOptions(Body):
    include_usage: bool | None = Field(default=None, description="A last chunk with the usage of the whole request.")
    include_obfuscation: bool | None = Field(default=None, description="Accepted, without effect.")


NoFunctions = Annotated[Any, Unsupported("give tools and tool_choice instead", [], "none", "auto")]
NoLogprobs = Annotated[Any, Unsupported("block diffusion has no probability of a text token by token", False, 0)]
NoPenalty = Annotated[Any, Unsupported("tokens are not penalized for repeating", 0)]
NoBias = Annotated[Any, Unsupported("tokens cannot be weighted", {})]
NoAudio = Annotated[Any, Unsupported("this model has no sound")]
NoPrediction = Annotated[Any, Unsupported("answers are not predicted from a draft")]
NoSearch = Annotated[Any, Unsupported("this server looks nothing up")]
NoStore = Annotated[Any, Unsupported("answers are not stored", False)]
NoThinking = Annotated[Any, Unsupported("only pictures can be thought about first: see /v1/images/generations", False, "none")]


@takes(Chat, Story)
class ChatRequest(SettingsBody, Streaming):
    """An answer to a conversation. With modalities ["text", "image"] it may hold pictures (a story, say)."""

    main = "messages"

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    modalities: list[Literal["text", "image"]] | None = Field(default=None, min_length=1, max_length=2)
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Another name of max_tokens.")
    n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Answers; answer i has the seed plus i.")
    stop: Stop | None = None
    size: Size | None = Field(default=None, description="Of images whose size the model does not say.")
    images_in: Literal["content", "images"] | None = Field(
        default=None,
        description="Where images of an answer stand: parts of its content (default), or in images, and content is a string.",
    )
    # OpenAI's, without effect here:
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    service_tier: Ignored = None
    metadata: dict[str, str] | None = Field(default=None, description="Accepted, without effect.")
    parallel_tool_calls: bool | None = Field(default=None, description="Accepted, without effect.")
    # What the answer is held to; `regex` is one of the settings:
    response_format: ResponseFormat | None = None
    choice: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, min_length=1, max_length=MOST_CHOICES, description="The answer is one of these texts (an extension)."
    )
    tools: list[FunctionTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: FunctionChoice | None = Field(default=None, description="Default: auto.")
    # OpenAI's, not supported:
    functions: NoFunctions = None
    function_call: NoFunctions = None
    logprobs: NoLogprobs = None
    top_logprobs: NoLogprobs = None
    frequency_penalty: NoPenalty = None
    presence_penalty: NoPenalty = None
    logit_bias: NoBias = None
    audio: NoAudio = None
    prediction: NoPrediction = None
    web_search_options: NoSearch = None
    store: NoStore = None
    thinking: NoThinking = None
    reasoning_effort: NoThinking = None

    @property
    def images_wanted(self) -> bool:
        return "image" in (self.modalities or ())

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check(self) -> None:
        """What several fields must agree on. Raises ApiError."""
        self.check_streaming("stream_options")
        if self.modalities is not None and "text" not in self.modalities:
            raise ApiError(400, 'modalities must be ["text"] or ["text", "image"]', "modalities")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ApiError(400, "max_tokens and max_completion_tokens differ; give one of them", "max_tokens")
        if self.stop is not None and "" in ([self.stop] if isinstance(self.stop, str) else self.stop):
            raise ApiError(400, "stop must not be an empty string", "stop")
        if not self.images_wanted:
            of_text = set(optional_fields(Understand))
            for name in ("size", "images_in", "partial_images", *optional_fields(Story)):
                if name not in of_text and getattr(self, name) not in (None, "auto"):
                    raise ApiError(400, f'{name} is for answers with images: set modalities to ["text", "image"]', name)


# --- the answer ---


FinishReason = Literal["stop", "length", "tool_calls"]


class AnswerUrl(BaseModel):
    url: str


class AnswerText(BaseModel):
    type: Literal["text"] = "text"
    text: str


class AnswerImage(BaseModel):
    type: Literal["image_url"] = "image_url"
    image_url: AnswerUrl


class AnswerBeside(AnswerImage):
    """A picture beside the words; offset: after how many characters of them it stands. index: from 0."""

    index: int
    offset: int


class AnswerMessage(GivenOnly):
    """images: with `images_in`. notices: what a client should know of the answer, such as that it is empty."""

    always = ("content", "reasoning_content", "refusal")

    role: Literal["assistant"] = "assistant"
    content: str | list[AnswerText | AnswerImage] | None
    tool_calls: list[Call] | None = None
    images: list[AnswerBeside] | None = None
    reasoning_content: str | None = None
    refusal: None = None
    notices: list[str] | None = None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Answer(Warned):
    """seed: of choice 0; choice i has seed + i. system_fingerprint: names the model and the version of this server."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    seed: int


class ChatCompletion(_Answer):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: ChatUsage


class Delta(GivenOnly):
    role: Literal["assistant"] | None = None
    content: str | list[AnswerImage] | None = None
    tool_calls: list[CallDelta] | None = None
    images: list[AnswerBeside] | None = None
    reasoning_content: str | None = None
    notices: list[str] | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: None = None


class ChatChunk(_Answer):
    """With every key that OpenAI's chunks must have, null or not."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]


class ChatChunkWithUsage(ChatChunk):
    """A chunk where `include_usage` was asked for: null in all but the last."""

    always = ("usage",)

    usage: ChatUsage | None = None


class ChatProgress(ProgressEvent, _Answer):
    """Progress as a chunk without choices, so that a client which reads every event as a chunk can read it."""

    always = ("grid", "codes")

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class ChatPartialImage(ChatPartialImageEvent, _Answer):
    """A partial image as a chunk without choices."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
