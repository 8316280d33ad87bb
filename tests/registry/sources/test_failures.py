"""Library errors become ours, and secrets stay out of the words."""

from __future__ import annotations

import errno
import ssl

import pytest
from adapterdock.manifests.findings import sources as codes
from adapterdock.manifests.findings.errors import OfflineError
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.sources.failures import explain, scrub
from adapterdock.registry.sources.hints import hint_for


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


def test_a_host_that_cannot_be_used_is_reported_alike_for_all_its_sources() -> None:
    def at(name: str) -> Where:
        return Where("m.yaml", ("adapters", name, "source"))

    one, other = (explain(ConnectionRefusedError(), f"s3://b/{n}", at(n), "h") for n in "xy")
    assert one.findings[0].message == other.findings[0].message == "Cannot connect to h"
    denied = explain(PermissionError(), "s3://b/x", at("x"), "h").findings[0].message
    assert denied.startswith("Cannot read s3://b/x: "), "another source may be allowed"


@pytest.mark.parametrize(
    ("error", "scheme", "has", "has_not"),
    [
        (ConnectionRefusedError(), "s3", "AWS_ENDPOINT_URL", "HF_"),
        (ConnectionRefusedError(), "hf", "HF_ENDPOINT", "AWS"),
        (ConnectionRefusedError(), "https", "--offline", "AWS"),
        (FileNotFoundError(), "s3", "upload", "revision"),
        (FileNotFoundError(), "hf", "revision", "bucket"),
    ],
)
def test_what_to_do_is_about_the_kind_of_the_source(
    error: Exception, scheme: str, has: str, has_not: str
) -> None:
    hint = str(explain(error, "x", Where(), scheme=scheme).findings[0].hint)
    assert has in hint and has_not not in hint


def test_a_missing_folder_that_is_not_local_gets_no_hint_about_relative_paths() -> None:
    for scheme in ("s3", "gs", "az", "https", "sftp"):
        assert "relative path" not in str(hint_for(codes.SOURCE_MISSING, scheme))
        assert hint_for(codes.SOURCE_MISSING, scheme) is not None
    assert hint_for(codes.SOURCE_MISSING, "file") is None
    assert "relative path" in codes.SOURCE_MISSING.fix


def test_an_unreachable_host_is_an_offline_error() -> None:
    assert isinstance(explain(ConnectionRefusedError(), "s3://b/x", Where()), OfflineError)
    assert not isinstance(explain(PermissionError(), "s3://b/x", Where()), OfflineError)


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (ValueError("Invalid endpoint: minio:9000"), "AD232", "with its scheme: https://HOST"),
        (ValueError("Invalid bucket"), "AD236", "Try the same URL"),
        (
            TypeError("__init__() got an unexpected keyword argument 'endpoint'"),
            "AD232",
            "Did you mean 'endpoint_url'?",
        ),
        (
            TypeError("__init__() got an unexpected keyword argument 'zzz'"),
            "AD232",
            "Remove the option",
        ),
        (ssl.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong version"), "AD224", "with http://"),
        (
            ssl.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "AD224",
            "AWS_CA_BUNDLE",
        ),
        (ssl.SSLError("[SSL] another"), "AD224", "Check the network, the proxy and the endpoint"),
    ],
)
def test_a_mistake_in_an_endpoint_or_an_option_has_its_own_hint(
    error: Exception, code: str, hint: str
) -> None:
    (finding,) = explain(error, "s3://b/x", Where(), scheme="s3").findings
    assert finding.code == code
    assert hint in str(finding.hint)
