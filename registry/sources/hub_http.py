"""Requests to the Hub through its client's own session (proxies, certificates, headers), with a
limit on what is read of each answer."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from ... import __version__
from ...manifests.bounds import ANSWER_BYTES
from .encodings import BadEncodingError, decoded, encoding_of

CLIENT: dict[str, Any] = {"library_name": "adapterdock", "library_version": __version__}
_REDIRECTIONS = 10
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class BadAnswerError(Exception):
    """The answer is invalid; the text says why."""


@contextmanager
def answer(
    url: str, token: str | bool | None, headers: Mapping[str, str], timeout: float
) -> Generator[tuple[Any, ...]]:
    """The answers to a GET of ``url``, redirections first; the last is open and unread, as it was
    sent (``iter_raw``). The session does not send the token to other hosts. Raises the client's
    errors, and ``BadAnswerError`` for too many redirections."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    session = get_session()
    own = build_hf_headers(token=token, **CLIENT) | {"Accept-Encoding": "identity", **headers}
    request = session.build_request("GET", url, headers=own, timeout=timeout)
    answers: list[Any] = []
    while True:
        response = session.send(request, stream=True, follow_redirects=False)
        answers.append(response)
        try:
            if response.next_request is None:
                if response.status_code >= 400:
                    hf_raise_for_status(_short(response))
                yield tuple(answers)
                return
        finally:
            response.close()
        if len(answers) > _REDIRECTIONS:
            raise BadAnswerError("too many redirections")
        request = response.next_request


def document(url: str, token: str | bool | None, timeout: float, most: int) -> Any:
    """The JSON behind ``url``. Raises what :func:`answer` raises, and ``BadAnswerError`` for more
    than ``most`` bytes and for invalid JSON."""
    body = bytearray()
    with answer(url, token, {"Accept-Encoding": "gzip"}, timeout) as answers:
        last = answers[-1]
        try:
            for piece in decoded(last.headers, last.iter_raw(), most):
                body += piece
                if len(body) > most:
                    raise BadAnswerError(f"more than {most} bytes")
        except BadEncodingError as error:
            raise BadAnswerError(str(error)) from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError("invalid JSON") from error


def sent_token(error: BaseException) -> bool:
    """Whether the request that the Hub refused with ``error`` had a token."""
    request = getattr(getattr(error, "response", None), "request", None)
    return request is not None and "authorization" in request.headers


def cannot_send(error: BaseException) -> bool:
    """Whether the token has characters that no header can have, or is empty."""
    header = type(error).__name__ == "LocalProtocolError" and "header value" in str(error)
    return header or isinstance(error, UnicodeEncodeError)


UNSENDABLE = "the token is empty, or has characters that no token has"


def _short(response: Any) -> Any:
    """An error answer with the start of its body; the client would read all of it."""
    body = bytearray()
    if encoding_of(response.headers) == "identity":
        for chunk in response.iter_raw():
            body += chunk
            if len(body) >= ANSWER_BYTES:
                break
    kept = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in _OF_THE_BODY]
    content = body[:ANSWER_BYTES].decode("utf-8", "replace").encode()
    return type(response)(
        response.status_code, headers=kept, content=content, request=response.request
    )
