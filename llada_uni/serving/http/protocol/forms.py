"""Forms of an answer that a client may ask for: JSON, and calls of functions. OpenAI's fields, in requests and in answers.

`response_format` and `tools` of a chat, `text.format` and `tools` of /v1/responses -> routes/forms.py, which holds the answer
to a grammar and reads calls out of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from llada_uni.serving.http.protocol.common import Body, Ignored, Unsupported, word_or

MOST_TOOLS = 64
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_\-]{1,64}$")]

# --- in a request ---


class SchemaFormat(Body):
    name: Name
    description: Ignored = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", description="Any JSON object where it is not given.")
    strict: bool | None = Field(default=None, description="Accepted, without effect: every schema is kept to.")


class ResponseFormat(Body):
    """text; json_object: any JSON object of bounded depth; json_schema: JSON that the schema allows (docs/grammar.md)."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class FunctionDescription(Body):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON schema of the arguments; none: no arguments.")
    strict: bool | None = Field(default=None, description="Accepted, without effect: every schema is kept to.")


class FunctionTool(Body):
    type: Literal["function"]
    function: FunctionDescription


class ChosenName(Body):
    name: Name


class ChosenFunction(Body):
    type: Literal["function"]
    function: ChosenName


FunctionChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[ChosenFunction, Tag("<function>")],
    Discriminator(
        word_or("<function>", ChosenFunction),
        custom_error_type="tool_choice",
        custom_error_message='must be "none", "auto", "required", or {"type": "function", "function": {"name": ...}}',
    ),
]


class FlatFunctionTool(FunctionDescription):
    """A function as /v1/responses has it."""

    type: Literal["function"]
    defer_loading: Annotated[Any, Unsupported("all functions are told at once", False)] = None
    allowed_callers: Annotated[Any, Unsupported("only the client calls functions", ["direct"])] = None
    output_schema: Annotated[Any, Field(description="Accepted, without effect.")] = None


class ChosenFlatFunction(ChosenName):
    type: Literal["function"]


class CalledFunction(Body):
    name: Name
    arguments: str


class EarlierCall(Body):
    """A call of an earlier answer, as it was sent."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(default=None, description="Accepted, without effect.")


# --- in an answer ---


class CallText(BaseModel):
    """arguments: JSON as text; in a stream, the next piece of it."""

    name: str | None = None
    arguments: str


class Call(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CallText


class CallDelta(BaseModel):
    """A piece of a call in a stream; id, type and name stand in the first one."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CallText
