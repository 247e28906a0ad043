"""Bodies of /v1/responses: what is asked, as OpenAI's newer API has it. Stateless: every request brings its whole conversation.

A string, or items (messages, images drawn before, reasoning text of before, calls of functions and what came of them) ->
`ResponsesRequest`; its turns are those of a chat. Images are drawn by the tool `image_generation`: with `tool_choice` "auto" an
answer may hold text and images in turn, and where the tool is required the answer is one image. Functions are called as in a
chat: an answer is text or one call.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llada_uni.requests import Chat, Draw, Edit, Request, Story, Understand
from llada_uni.serving.http.protocol.chat import NoLogprobs, NoStore, Nothing, Stop
from llada_uni.serving.http.protocol.common import Body, Ignored, Size, Streaming, Unsupported
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.forms import MOST_TOOLS, ChosenFlatFunction, FlatFunctionTool, Name
from llada_uni.serving.http.protocol.images import OnlyOpaque, check_compression
from llada_uni.serving.http.protocol.settings import SettingsBody, optional_fields, takes
from llada_uni.serving.scheduler.job import MOST_PARTIALS

Anything = Annotated[Any, Field(description="Accepted, without effect.")]

# --- items of the input ---


class InputText(Body):
    """Words; those of an earlier answer come as it gave them."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Anything = None
    logprobs: Anything = None
    prompt_cache_breakpoint: Anything = None


NoFiles = Annotated[Any, Unsupported("this server keeps no files; send images as data URIs")]


class InputImage(Body):
    type: Literal["input_image"]
    image_url: str | None = Field(default=None, description="A data URI; http(s) only where the server allows it.")
    file_id: NoFiles = None
    detail: Ignored = None
    prompt_cache_breakpoint: Anything = None


def _kind_of_part(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return "<text>" if kind in ("input_text", "output_text") else "<image>" if kind == "input_image" else None


Part = Annotated[
    Annotated[InputText, Tag("<text>")] | Annotated[InputImage, Tag("<image>")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message='must be {"type": "input_text", "text": ...} or {"type": "input_image", "image_url": ...}',
    ),
]


def _words_or_list(value: Any) -> str | None:
    return "<words>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("<words>")] | Annotated[list[Part], Tag("<list>")],
    Discriminator(_words_or_list, custom_error_type="content", custom_error_message="must be a string or a list of parts"),
]


def _parts(content: str | list[InputText | InputImage]) -> list[InputText | InputImage]:
    return [InputText(type="input_text", text=content)] if isinstance(content, str) else content


class MessageItem(Body):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: Ignored = None
    status: Ignored = None
    phase: Ignored = None

    def parts(self) -> list[InputText | InputImage]:
        return _parts(self.content)


class DrawnItem(Body):
    """An image of an earlier answer, as that had it."""

    type: Literal["image_generation_call"]
    result: str = Field(description="The image in base64.")
    id: Ignored = None
    status: Ignored = None
    action: Anything = None
    background: Anything = None
    error: Anything = None
    output_format: Anything = None
    quality: Anything = None
    revised_prompt: Anything = None
    size: Anything = None
    seed: Anything = None
    notices: Anything = None


class ReasoningItem(Body):
    """Reasoning text of an earlier answer: the model does not read it again."""

    type: Literal["reasoning"]
    id: Ignored = None
    summary: Anything = None
    content: Anything = None
    encrypted_content: Anything = None
    status: Ignored = None


class CallItem(Body):
    """A call of an earlier answer, as that had it."""

    type: Literal["function_call"]
    call_id: str
    name: Name
    arguments: str
    id: Ignored = None
    status: Ignored = None
    caller: Anything = None
    namespace: Anything = None


class CallOutputItem(Body):
    """What came of a call: the model reads it as it reads a user's message."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: Ignored = None
    status: Ignored = None
    name: Ignored = None
    caller: Anything = None
    namespace: Anything = None

    def parts(self) -> list[InputText | InputImage]:
        return _parts(self.output)


def _kind_of_item(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    kinds = {
        "message": "<message>", "image_generation_call": "<drawn>", "reasoning": "<reasoning>", "function_call": "<call>",
        "function_call_output": "<result>",
    }  # fmt: skip
    return "<message>" if kind is None else kinds.get(kind) if isinstance(kind, str) else None


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[DrawnItem, Tag("<drawn>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[CallItem, Tag("<call>")]
    | Annotated[CallOutputItem, Tag("<result>")],
    Discriminator(
        _kind_of_item,
        custom_error_type="item",
        custom_error_message=(
            "must be a message, image_generation_call, reasoning, function_call or function_call_output; no other item means "
            "anything here"
        ),
    ),
]
Input = Annotated[
    Annotated[str, Tag("<words>")] | Annotated[list[Item], Field(min_length=1), Tag("<list>")],
    Discriminator(_words_or_list, custom_error_type="input", custom_error_message="must be a string or a list of items"),
]

# --- tools and the form of the answer ---

NoMask = Annotated[Any, Unsupported("masks are for /v1/images/edits")]


class ImageTool(Body):
    type: Literal["image_generation"]
    action: Literal["auto", "generate", "edit"] | None = Field(
        default=None,
        description="Of a required tool: draw, or change the last images; auto: change those of the last turn.",
    )
    size: Size | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    partial_images: Annotated[int, Field(ge=0, le=MOST_PARTIALS)] | None = None
    background: OnlyOpaque = None
    input_image_mask: NoMask = None
    quality: Ignored = None
    moderation: Ignored = None
    input_fidelity: Ignored = None
    model: Ignored = None


def _kind_of_tool(tool: Any) -> str | None:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "<image>" if kind == "image_generation" else "<function>" if kind == "function" else None


Tool = Annotated[
    Annotated[ImageTool, Tag("<image>")] | Annotated[FlatFunctionTool, Tag("<function>")],
    Discriminator(
        _kind_of_tool,
        custom_error_type="tool",
        custom_error_message='must be {"type": "image_generation"} or {"type": "function", ...}: this route has no other tool',
    ),
]


class ChosenTool(Body):
    type: Literal["image_generation"]


def _kind_of_choice(choice: Any) -> str | None:
    return "<word>" if isinstance(choice, str) else _kind_of_tool(choice)


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")]
    | Annotated[ChosenTool, Tag("<image>")]
    | Annotated[ChosenFlatFunction, Tag("<function>")],
    Discriminator(
        _kind_of_choice,
        custom_error_type="tool_choice",
        custom_error_message=(
            'must be "none", "auto", "required", {"type": "image_generation"} or {"type": "function", "name": ...}'
        ),
    ),
]


class TextFormat(Body):
    """text; json_object: any JSON object of bounded depth; json_schema: JSON that the schema allows (docs/grammar.md)."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: Ignored = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = Field(default=None, description="Accepted, without effect: every schema is kept to.")


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: Ignored = None


NoReasoning = Annotated[
    Any, Unsupported("there is no effort to choose; `thinking` is for required images", {}, {"effort": "none"})
]
NoState = Annotated[Any, Unsupported("this server keeps nothing between requests: send the whole conversation as input")]


class StreamOptions(Body):
    include_obfuscation: bool | None = Field(default=None, description="Accepted, without effect.")


@takes(Chat, Story, Draw, Edit)
class ResponsesRequest(SettingsBody, Streaming):
    """An answer to a conversation, in text, or with the tool image_generation in text and images."""

    main = "input"

    input: Input
    model: str | None = None
    instructions: str | None = Field(default=None, description="Stands before the conversation, like a system message.")
    max_output_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Another name of max_tokens.")
    max_tool_calls: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Another name of max_frames.")
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    text: TextConfig | None = None
    stop: Stop | None = None
    stream_options: StreamOptions | None = None
    # OpenAI's, without effect here:
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Anything = None
    service_tier: Ignored = None
    metadata: dict[str, str] | None = Field(default=None, description="Given back in the answer.")
    parallel_tool_calls: bool | None = Field(default=None, description="Accepted, without effect.")
    include: Annotated[Any, Unsupported("there is nothing of this kind", [], ["reasoning.encrypted_content"])] = None
    # OpenAI's, not supported:
    store: NoStore = None
    background: Annotated[Any, Unsupported("answers are not made in the background", False)] = None
    previous_response_id: NoState = None
    conversation: NoState = None
    prompt: NoState = None
    context_management: Nothing = None
    reasoning: NoReasoning = None
    top_logprobs: NoLogprobs = None
    truncation: Annotated[Any, Unsupported("a conversation that is too long is not cut", "disabled")] = None

    @property
    def tool(self) -> ImageTool | None:
        """The image tool, where an answer may use it."""
        if self.tool_choice == "none" or isinstance(self.tool_choice, ChosenFlatFunction):
            return None
        return next((tool for tool in self.tools or () if isinstance(tool, ImageTool)), None)

    @property
    def must_draw(self) -> bool:
        return self.tool is not None and (self.tool_choice == "required" or isinstance(self.tool_choice, ChosenTool))

    @property
    def functions(self) -> list[FlatFunctionTool]:
        """The functions that an answer may call."""
        if self.tool_choice == "none" or isinstance(self.tool_choice, ChosenTool):
            return []
        chosen = self.tool_choice.name if isinstance(self.tool_choice, ChosenFlatFunction) else None
        found = [tool for tool in self.tools or () if isinstance(tool, FlatFunctionTool)]
        return [tool for tool in found if chosen in (None, tool.name)]

    @property
    def must_call(self) -> bool:
        return bool(self.functions) and self.tool_choice not in (None, "auto")

    @property
    def form(self) -> TextFormat | None:
        """The JSON that an answer has to be, where it is asked for."""
        found = None if self.text is None else self.text.format
        return None if found is None or found.type == "text" else found

    @property
    def most_partials(self) -> int:
        of_tool = None if self.tool is None else self.tool.partial_images
        return (self.partial_images if of_tool is None else of_tool) or 0

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_output_tokens is None else self.max_output_tokens

    def items(self) -> list[MessageItem | DrawnItem | ReasoningItem | CallItem | CallOutputItem]:
        return [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    def check(self) -> None:
        """What several fields must agree on. Raises ApiError."""
        self.check_streaming()
        self._check_tools()
        if self.tool is not None:
            check_compression(self.tool.output_format, self.tool.output_compression, "tools[0].output_compression")
            if self.tool.partial_images and not self.stream:
                raise ApiError(400, "partial_images is for streams: set stream to true", "tools[0].partial_images")
            if self.tool.action == "edit" and not self.must_draw:
                raise ApiError(400, 'action is for a tool that is required: set tool_choice to "required"', "tools[0].action")
        elif (self.max_tool_calls is not None and not self.functions) or self.partial_images:
            name = "partial_images" if self.partial_images else "max_tool_calls"
            raise ApiError(400, f'{name} is for answers with images: add the tool {{"type": "image_generation"}}', name)
        for one, other in (("max_tokens", "max_output_tokens"), ("max_frames", "max_tool_calls")):
            if None not in (getattr(self, one), getattr(self, other)) and getattr(self, one) != getattr(self, other):
                raise ApiError(400, f"{one} and {other} differ; give one of them", one)
        if self.stop is not None and "" in ([self.stop] if isinstance(self.stop, str) else self.stop):
            raise ApiError(400, "stop must not be an empty string", "stop")

    def _check_tools(self) -> None:
        if not self.functions and self.tool is None and self.tool_choice not in (None, "none", "auto"):
            sentence = 'tool_choice names a tool that is not among tools: add {"type": "image_generation"} or the function'
            raise ApiError(400, sentence, "tool_choice")
        if self.functions and self.tool is not None:
            sentence = "functions and image_generation are given; an answer has one of the two: choose it in tool_choice"
            raise ApiError(400, sentence, "tools")
        if sum(isinstance(tool, ImageTool) for tool in self.tools or ()) > 1:
            raise ApiError(400, "image_generation is given twice", "tools")
        if self.form is not None and self.form.type == "json_schema" and self.form.schema_ is None:
            sentence = 'schema is missing: give {"type": "json_schema", "name": ..., "schema": {...}}'
            raise ApiError(400, sentence, "text.format.schema")

    def check_settings(self, *kinds: type[Request]) -> None:
        """ApiError for a setting that this kind of answer does not have."""
        known = {name for kind in kinds for name in optional_fields(kind)}
        for name in {name: None for kind in (Story, Draw, Edit) for name in optional_fields(kind)}:
            if name not in known and getattr(self, name) is not None:
                raise ApiError(400, f"{name} is not for this kind of answer: {_KINDS[kinds[0]]}", name)


_KINDS: dict[type[Request], str] = {
    Understand: "text alone, as no image tool is given",
    Story: "text and images in turn",
    Draw: "one image that is drawn",
    Edit: "one image that is changed",
}
