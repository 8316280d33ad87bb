"""What one replica says of itself: its status, or else its list of models."""

from __future__ import annotations

from dataclasses import dataclass

from .address import Replica
from .answers import (
    MODELS_PATH,
    STATUS_PATH,
    Asked,
    BadAnswerError,
    Hide,
    ModelsAnswer,
    NoAnswer,
    read_models,
    read_status,
)
from .http import Answer, NotAnsweredError, ask

KEY_HINT = (
    "Set ADAPTERDOCK_FLEET_KEY to the key that the server was started with, or name a file with it "
    "in --key-file."
)
SECONDS = 10.0
"""For one request and its whole answer."""


@dataclass(frozen=True)
class Line:
    """How replicas are asked.

    Args:
        key: Sent as a Bearer token, and never shown.
        seconds: For each request.
    """

    key: str | None = None
    seconds: float = SECONDS

    @property
    def hide(self) -> Hide:
        """Text without the key, which a server could send back."""
        key = self.key
        return str if key is None else lambda text: text.replace(key, "***")


def ask_replica(replica: Replica, line: Line) -> Asked:
    """The replica's answer; a failure is one too."""
    try:
        answer = ask(replica, STATUS_PATH, key=line.key, seconds=line.seconds)
        if answer.status in (404, 405):  # another server, or one without our plugin
            return Asked(replica, list_models(replica, line))
        return Asked(replica, read_status(_accepted(answer, STATUS_PATH, line), line.hide))
    except NotAnsweredError as error:
        return Asked(replica, NoAnswer(line.hide(error.reason), error.hint))
    except BadAnswerError as error:
        return Asked(replica, NoAnswer(line.hide(str(error))))


def list_models(replica: Replica, line: Line) -> ModelsAnswer:
    """Raises :class:`NotAnsweredError` and :class:`BadAnswerError`."""
    answer = ask(replica, MODELS_PATH, key=line.key, seconds=line.seconds)
    return read_models(_accepted(answer, MODELS_PATH, line), line.hide)


def _accepted(answer: Answer, path: str, line: Line) -> bytes:
    """The body of a 200."""
    if answer.status == 200:
        return answer.body
    if answer.status in (401, 403):
        said = "needs a key" if line.key is None else "rejected the key"
        raise NotAnsweredError(f"it {said} (HTTP {answer.status})", KEY_HINT)
    raise NotAnsweredError(f"it answered HTTP {answer.status} for {path}")
