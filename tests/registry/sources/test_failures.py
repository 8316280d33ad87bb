"""Library errors become ours, and secrets stay out of the words."""

from __future__ import annotations

import errno

import pytest
from adapterdock.manifests.findings.errors import OfflineError
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.sources.failures import explain, scrub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://bob:hunter2@x.org/a?sig=abc#f now", "see https://x.org/a?... now"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("hf://acme/tone@v2/sub", "hf://acme/tone@v2/sub"),
        ("token hf_abcdefghijkl refused", "token *** refused"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("plain words, a/b@c", "plain words, a/b@c"),
    ],
)
def test_scrub_removes_secrets_and_keeps_the_rest(text: str, expected: str) -> None:
    assert scrub(text) == expected


def test_scrub_removes_the_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "Zm9vYmFyYmF6")
    monkeypatch.setenv("MY_SERVICE_TOKEN", "tok-123456")
    assert scrub("key Zm9vYmFyYmF6, tok-123456") == "key ***, ***"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "AD224"),
        (TimeoutError("timed out"), "AD225"),
        (ConnectionResetError(), "AD226"),
        (PermissionError("no"), "AD220"),
        (FileNotFoundError("x"), "AD206"),
        (OSError(errno.ENOSPC, "No space left on device"), "AD237"),
        (TypeError("f() got an unexpected keyword argument 'x'"), "AD232"),
        (RuntimeError("what is this"), "AD236"),
    ],
)
def test_an_error_of_python_has_its_code(error: Exception, code: str) -> None:
    assert explain(error, "s3://b/x", Where()).code == code


def test_the_message_names_the_host_and_what_went_wrong() -> None:
    def message(error: Exception) -> str:
        return explain(error, "s3://b/x", Where(), "minio:9000").findings[0].message

    class NoCredentialsError(Exception):
        """As botocore raises it."""

    class RejectedError(Exception):
        status = 401

    connect = "Cannot read s3://b/x: cannot connect to minio:9000"
    assert message(ConnectionRefusedError()) == connect
    missing = "Cannot read s3://b/x: no credentials found for minio:9000"
    assert message(NoCredentialsError()) == missing
    rejected = "Cannot read s3://b/x: minio:9000 rejected the credentials (HTTP 401)"
    assert message(RejectedError()) == rejected


def test_an_unreachable_host_is_an_offline_error() -> None:
    assert isinstance(explain(ConnectionRefusedError(), "s3://b/x", Where()), OfflineError)
    assert not isinstance(explain(PermissionError(), "s3://b/x", Where()), OfflineError)
