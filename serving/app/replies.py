"""The bodies of answers, in OpenAI's form."""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .rows import Piece


@dataclass(frozen=True)
class Reply:
    """What all parts of one answer have in common.

    Args:
        kind: ``chat`` or ``completions``.
        model: The adapter, as the request names it.
        id: Of the answer.
        created: Seconds since the epoch.
    """

    kind: str
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def complete(self, answers: Sequence[Piece], usage: Mapping[str, int]) -> dict[str, Any]:
        """The answer of all rows."""
        return {
            **self._head("chat.completion" if self.kind == "chat" else "text_completion"),
            "choices": [self._whole(at, answer) for at, answer in enumerate(answers)],
            "usage": dict(usage),
        }

    def chunk(self, row: int, piece: Piece, *, first: bool) -> dict[str, Any]:
        """One event of a stream: a piece of one row."""
        if self.kind == "chat":
            delta = {"role": "assistant"} if first else {}
            delta |= {"content": piece.text} if piece.text or first else {}
            said: dict[str, Any] = {"delta": delta}
        else:
            said = {"text": piece.text}
        choice = {"index": row, **said, "logprobs": None, "finish_reason": piece.finish}
        return {**self._head(self._chunked), "choices": [choice]}

    def usage_chunk(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """The event with the usage."""
        return {**self._head(self._chunked), "choices": [], "usage": dict(usage)}

    @property
    def _chunked(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def _whole(self, at: int, answer: Piece) -> dict[str, Any]:
        if self.kind == "chat":
            message = {"role": "assistant", "content": answer.text, "refusal": None}
            said: dict[str, Any] = {"message": message}
        else:
            said = {"text": answer.text}
        return {"index": at, **said, "logprobs": None, "finish_reason": answer.finish}


def event(data: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


END = "data: [DONE]\n\n"


def usage_of(prompt: int, completion: int | None = None) -> dict[str, int]:
    """How many tokens a request took; each prompt counts once."""
    if completion is None:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def embeddings(
    model: str, vectors: Sequence[Sequence[float]], prompt: int, *, as_base64: bool
) -> dict[str, Any]:
    """The answer of ``/v1/embeddings``; base64 is of float32, little-endian, as OpenAI's is."""

    def written(vector: Sequence[float]) -> Any:
        if not as_base64:
            return list(vector)
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")

    rows = [
        {"object": "embedding", "index": at, "embedding": written(vector)}
        for at, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": rows, "model": model, "usage": usage_of(prompt)}


def classes(
    model: str, rows: Sequence[Sequence[float]], labels: Mapping[int, str], prompt: int
) -> dict[str, Any]:
    """The answer of ``/v1/classify``: of each input the likeliest label, and all probabilities."""
    data: list[dict[str, Any]] = []
    for at, probs in enumerate(rows):
        best = max(range(len(probs)), key=probs.__getitem__)
        names = labels if len(labels) == len(probs) else {}
        label = names.get(best, f"LABEL_{best}")
        data.append({"index": at, "label": label, "probs": list(probs), "num_classes": len(probs)})
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": usage_of(prompt),
    }


def models(names: Sequence[str], tasks: Sequence[str], roots: Mapping[str, str]) -> dict[str, Any]:
    """The answer of ``/v1/models``. ``roots``: by name, the digest of what is served."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "adapterdock",
                "root": roots.get(name),
                "tasks": list(tasks),
            }
            for name in names
        ],
    }
