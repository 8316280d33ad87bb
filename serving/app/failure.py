"""A request that is refused: a finding, and the HTTP status that it has."""

from __future__ import annotations

from typing import Any

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding

_STATUS = {
    codes.REQUEST_INVALID.id: 400,
    codes.REQUEST_TOO_LARGE.id: 400,
    codes.NOT_FOR_THIS_BASE.id: 400,
    codes.KEY_REFUSED.id: 401,
    codes.MODEL_NOT_SERVED.id: 404,
    codes.SERVER_BUSY.id: 503,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "server_error",
}
RETRY_SECONDS = 5


class RequestError(Exception):
    """A request, or one row of it, that gets no answer."""

    def __init__(self, finding: Finding, status: int | None = None, param: str | None = None):
        super().__init__(finding.message)
        self.finding = finding
        self.status = _STATUS.get(finding.code, 500) if status is None else status
        self.param = param

    @property
    def headers(self) -> dict[str, str]:
        """What the answer has besides its body."""
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_SECONDS)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}

    def as_dict(self) -> dict[str, Any]:
        """The body of the answer, in OpenAI's form."""
        finding = self.finding
        message = f"{finding.code} {finding.name}: {finding.message}"
        details = {"found": finding.found, "expected": finding.expected, "hint": finding.hint}
        message += "".join(f"; {word}: {text}" for word, text in details.items() if text)
        if self.status >= 500:
            kind = "server_error"
        else:
            kind = _TYPES.get(self.status, "invalid_request_error")
        code = "model_not_found" if finding.code == codes.MODEL_NOT_SERVED.id else finding.code
        return {"error": {"message": message, "type": kind, "param": self.param, "code": code}}


def invalid(message: str, param: str | None = None, **details: Any) -> RequestError:
    """A request that is not valid."""
    return RequestError(codes.REQUEST_INVALID.finding(message, **details), param=param)


def too_large(message: str, param: str | None = None, status: int = 400, **details: Any):
    """A request that asks for more than the server allows."""
    return RequestError(codes.REQUEST_TOO_LARGE.finding(message, **details), status, param)


def not_served(name: str) -> RequestError:
    """A name that is not served to this caller. It lists no other names."""
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    return RequestError(
        codes.MODEL_NOT_SERVED.finding(f"The model {shown!r} is not served"), param="model"
    )


def busy(message: str) -> RequestError:
    """A server that takes no more requests now."""
    return RequestError(codes.SERVER_BUSY.finding(message))
