"""The bodies of requests: OpenAI's, as far as they are served.

A field that is not here is refused, as is a value that would have to be ignored. A few fields that
clients send with a value that asks for nothing (``presence_penalty: 0``) are accepted with it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_FIELDS = 100
"""The most of one object."""


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can hold halves of surrogate pairs, which no tokenizer takes
        raise ValueError("text without halves of surrogate pairs") from None
    return text


Zero = Annotated[float, Field(ge=0, le=0)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
# every list ends at its first error: a body of megabytes could give millions of them
TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1, fail_fast=True)
]
Text = Annotated[str, Field(strict=True), AfterValidator(_encodable)]
Prompt = (
    Text
    | TokenIds
    | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
    | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)]
)
"""A text, the tokens of one, several texts, or the tokens of several."""
UNIONS = {
    "prompt": "text, token ids (from 0 on), or a list of either",
    "input": "text, token ids (from 0 on), or a list of either",
    "stop": "text, or a list of texts",
    "content": "text, or a list of parts of the type text",
}
"""What fields may be that may be several things: pydantic would name the first one alone."""
Nothing = Annotated[list[Any], Field(max_length=0)]


class Body(BaseModel):
    """Frozen, closed and strict: text is no number. ``null`` asks for a field's default, as OpenAI
    says of its optional fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cast("dict[str, Any]", data)
        if len(fields) > _FIELDS:
            raise ValueError(f"at most {_FIELDS} fields")  # each unknown one would be an error
        return {name: value for name, value in fields.items() if not cls._is_default(name, value)}

    @classmethod
    def _is_default(cls, name: str, value: object) -> bool:
        field = cls.model_fields.get(name)
        return value is None and field is not None and not field.is_required()


class AnyRequest(Body):
    """What every request has."""

    model: str = Field(min_length=1, max_length=512, description="an adapter or composition")
    user: str | None = Field(default=None, description="for people; not used")


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One message of a chat. The fields that answers have besides may come back with nothing in
    them."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)]
    name: Text | None = None
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None

    @property
    def text(self) -> str:
        """Its content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(Body):
    """How an answer is streamed."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class ResponseFormat(Body):
    """Text only."""

    type: Literal["text"]


class Generation(AnyRequest):
    """What chat and completions have in common."""

    temperature: float = Field(default=1.0, ge=0, le=2, description="0: the likeliest token")
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1, description="not OpenAI's")
    n: int = Field(default=1, ge=1)
    seed: Seed | None = None
    stop: Text | Annotated[list[Text], Field(fail_fast=True)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Its stop texts."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def usage_in_stream(self) -> bool:
        """Whether the last event of a stream has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Generation):
    """``POST /v1/chat/completions``"""

    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: Literal[False] | None = None
    top_logprobs: Zero | None = None
    response_format: ResponseFormat | None = None
    tool_choice: Literal["none"] | None = None
    store: Literal[False] | None = None

    @property
    def new_tokens(self) -> int | None:
        """The most tokens of an answer, by either name."""
        both = (self.max_completion_tokens, self.max_tokens)
        return min((number for number in both if number is not None), default=None)


class CompletionRequest(Generation):
    """``POST /v1/completions``"""

    prompt: Prompt
    max_tokens: int | None = Field(default=None, ge=1)
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def new_tokens(self) -> int | None:
        """The most tokens of an answer."""
        return self.max_tokens


class EmbeddingsRequest(AnyRequest):
    """``POST /v1/embeddings``: texts, tokens, or images as ``data:`` URLs for a vision model."""

    input: Prompt
    encoding_format: Literal["float", "base64"] = "float"


class ClassifyRequest(AnyRequest):
    """``POST /v1/classify``: like vLLM's."""

    input: Prompt


def as_list(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    """The inputs of a request, one a row."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [[one for one in prompt if isinstance(one, int)]]
    return [one for one in prompt if not isinstance(one, int)]
