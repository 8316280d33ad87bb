"""The client of OCI registries, against one that speaks the protocol and can misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    OfflineError,
    SourceError,
    StoreError,
)
from adapterdock.manifests.language.oci_reference import OciReference
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.oci import http as oci_http
from adapterdock.registry.oci.artifact import (
    Artifact,
    pack_adapter,
    pack_signatures,
    read_adapter,
    read_signatures,
    unpack_files,
)
from adapterdock.registry.oci.client import OciClient, reference_of
from adapterdock.registry.oci.http import challenges, token_in
from adapterdock.registry.oci.login import Login
from adapterdock.registry.oci.manifest import Descriptor, read_manifest
from hypothesis import given
from hypothesis import strategies as some
from support.oci_adapters import CONTENTS, artifact, entry_bytes
from support.oci_server import OciServer

LOGIN = Login("me", "secret:word")
LARGE = bytes(range(256)) * 12_000  # 3 MB


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(oci_http, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("ADAPTERDOCK_STALL_SECONDS", "1")
    return


def client(oci: OciServer, login: Login | None = None, **more: Any) -> OciClient:
    return OciClient(OciReference(oci.host, "team/refunds"), login, **more)


def blob_of(oci: OciServer, content: bytes) -> Descriptor:
    found = Descriptor.of("application/octet-stream", content, "weights")
    oci.blobs[found.digest] = content
    return found


def code_of(error: pytest.ExceptionInfo[AdapterdockError]) -> str:
    return error.value.code


def test_an_adapter_is_pushed_and_pulled_unchanged(oci: OciServer, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {**CONTENTS}
    files["adapter_model.safetensors"] = tmp_path / "weights"
    (tmp_path / "weights").write_bytes(CONTENTS["adapter_model.safetensors"])
    packed = pack_adapter(entry_bytes(), files)
    digest = client(oci).push(packed, "2.1.0")
    assert digest == packed.manifest.digest
    for name in ("2.1.0", digest):
        reader = client(oci)
        manifest = reader.manifest(name)
        assert manifest == packed.manifest
        entry, raw = read_adapter(manifest, reader)
        written = unpack_files(entry, reader, tmp_path / name.replace(":", "-"))
        assert raw == entry_bytes()
        assert {path: file.read_bytes() for path, file in written.items()} == CONTENTS


def test_signatures_are_found_by_the_digest_that_they_sign(oci: OciServer) -> None:
    packed = artifact()
    writer = client(oci)
    digest = writer.push(packed, "2.1.0")
    assert writer.signatures(digest) is None
    writer.push(pack_signatures(packed.manifest, [b"one", b"two"]), digest.replace(":", "-"))
    found = client(oci).signatures(digest)
    assert found is not None
    assert sorted(read_signatures(found, digest, client(oci))) == [b"one", b"two"]


def test_what_is_there_is_not_sent_again(oci: OciServer) -> None:
    client(oci).push(artifact(), "one")
    sent = oci.count("PUT", "blobs/uploads")
    counted: list[int] = []
    client(oci).push(artifact(), "two", counted.append)
    assert oci.count("PUT", "blobs/uploads") == sent
    assert sum(counted) == sum(map(len, {*CONTENTS.values(), entry_bytes()}))
    changed = pack_adapter(entry_bytes(description="new"), CONTENTS)
    client(oci).push(changed, "three")
    assert oci.count("PUT", "blobs/uploads") == sent + 1


def test_a_push_without_a_tag_is_found_by_its_digest_only(oci: OciServer) -> None:
    digest = client(oci).push(artifact(), None)
    assert client(oci).manifest(digest) == artifact().manifest
    assert {tag for _, tag in oci.manifests} == {digest}


def test_an_absolute_upload_location_with_a_query_is_understood(oci: OciServer) -> None:
    oci.relative = False
    client(oci).push(artifact(), "2.1.0")
    assert client(oci).manifest("2.1.0") == artifact().manifest


def test_a_missing_artifact_is_named(oci: OciServer) -> None:
    with pytest.raises(SourceError) as caught:
        client(oci).manifest("2.1.0")
    assert code_of(caught) == "AD201"
    assert "'2.1.0'" in str(caught.value)


def test_a_changed_file_is_never_completed_on_the_registry(oci: OciServer, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    for content in (b"v" * 1000, b"w" * 999, b"w" * 1001):
        weights.write_bytes(content)
        packed = pack_adapter(entry_bytes(), {**CONTENTS, "adapter_model.safetensors": weights})
        with pytest.raises(IntegrityError):
            client(oci).push(packed, "2.1.0")
        assert sha256_bytes(content) not in oci.blobs
        assert oci.manifests == {}


def test_a_file_that_cannot_be_read_ends_the_push(oci: OciServer, tmp_path: Path) -> None:
    files = {**CONTENTS, "adapter_model.safetensors": tmp_path / "nothing"}
    with pytest.raises(StoreError):
        client(oci).push(pack_adapter(entry_bytes(), files), "2.1.0")
    with pytest.raises(IntegrityError):
        client(oci).push(Artifact(artifact().manifest, {}), "2.1.0")


# -- logins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_is_used_where_the_registry_asks_for_one(oci: OciServer, auth: str) -> None:
    oci.auth = auth
    client(oci, LOGIN).push(artifact(), "2.1.0")
    assert client(oci, LOGIN).manifest("2.1.0") == artifact().manifest
    assert "Authorization" not in oci.requests[0][2]
    for login in (None, Login("me", "other")):
        with pytest.raises(SourceError) as caught:
            client(oci, login).manifest("2.1.0")
        assert code_of(caught) == "AD221"
        assert "other" not in str(caught.value)


def test_one_client_pulls_and_then_pushes(oci: OciServer) -> None:
    oci.auth = "bearer"
    one = client(oci, LOGIN)
    with pytest.raises(SourceError):
        one.manifest("2.1.0")
    one.push(artifact(), "2.1.0")
    assert one.manifest("2.1.0") == artifact().manifest
    assert {scope.rpartition(":")[2] for scope in oci.tokens.values()} == {"pull", "pull,push"}


def test_a_token_that_expired_is_renewed(oci: OciServer) -> None:
    oci.auth = "bearer"
    one = client(oci, LOGIN)
    one.push(artifact(), "2.1.0")
    oci.tokens.clear()
    one.push(artifact(description="new"), "2.2.0")
    assert one.manifest("2.2.0") == artifact(description="new").manifest


def test_an_identity_token_is_exchanged(oci: OciServer) -> None:
    oci.auth, oci.identity = "bearer", "refresh"
    client(oci, Login(identity_token="refresh")).push(artifact(), "2.1.0")
    assert any(method == "POST" and path == "/token" for method, path, _ in oci.requests)
    with pytest.raises(SourceError) as caught:
        client(oci, Login(identity_token="wrong-token")).manifest("2.1.0")
    assert code_of(caught) == "AD221"
    assert "wrong-token" not in str(caught.value)


def test_an_identity_token_is_not_sent_as_a_password(oci: OciServer) -> None:
    oci.auth = "basic"
    with pytest.raises(SourceError):
        client(oci, Login(identity_token="refresh")).manifest("2.1.0")
    assert [headers.get("Authorization") for _, _, headers in oci.requests] == [None]


def test_public_artifacts_are_pulled_without_a_login(oci: OciServer) -> None:
    oci.auth, oci.anonymous_pull = "bearer", True
    client(oci, LOGIN).push(artifact(), "2.1.0")
    assert client(oci).manifest("2.1.0") == artifact().manifest
    with pytest.raises(SourceError) as caught:
        client(oci).push(artifact(description="new"), "2.1.0")
    assert code_of(caught) == "AD221"


@pytest.mark.parametrize("realm", ["ftp://a/token", "file:///etc/passwd", "http://[", "//u:p@a/t"])
def test_a_token_server_that_is_no_web_server_is_not_asked(oci: OciServer, realm: str) -> None:
    oci.auth, oci.realm = "bearer", realm
    with pytest.raises(SourceError) as caught:
        client(oci, LOGIN).manifest("2.1.0")
    assert code_of(caught) == "AD227"


def test_a_login_never_follows_a_redirection(oci: OciServer, tmp_path: Path) -> None:
    other = OciServer()
    try:
        oci.auth = "basic"
        oci.redirect = other.url
        weights = blob_of(oci, LARGE)
        other.blobs = oci.blobs
        client(oci, LOGIN).copy(weights, tmp_path / "new")
        assert (tmp_path / "new").read_bytes() == LARGE
        assert [headers.get("Authorization") for _, _, headers in other.requests] == [None]
        with pytest.raises(SourceError) as caught:
            client(oci, LOGIN, permits=lambda url: False).copy(weights, tmp_path / "other")
        assert code_of(caught) == "AD855"
        assert len(other.requests) == 1
    finally:
        other.close()


def test_redirections_in_circles_end(oci: OciServer, tmp_path: Path) -> None:
    oci.redirect = oci.url
    with pytest.raises(SourceError) as caught:
        client(oci).copy(blob_of(oci, b"x"), tmp_path / "new")
    assert code_of(caught) == "AD227"


def test_a_registry_elsewhere_is_never_asked_without_tls() -> None:
    connection = oci_http.OciConnection(OciReference("a.example", "x"), None)
    assert connection.place("https://a.example/v2/", "/b") == "https://a.example/b"
    with pytest.raises(SourceError):
        connection.place("https://a.example/v2/", "http://a.example/b")


# -- bad answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cut", "short", "stall"])
def test_a_transfer_that_breaks_is_continued(oci: OciServer, tmp_path: Path, mode: str) -> None:
    weights = blob_of(oci, LARGE)
    oci.strange = [mode]
    counted: list[int] = []
    client(oci).copy(weights, tmp_path / "new", counted.append)
    assert (tmp_path / "new").read_bytes() == LARGE
    assert sum(counted) == len(LARGE)
    assert oci.requests[-1][2]["Range"].startswith("bytes=")


def test_a_registry_without_ranges_starts_over(oci: OciServer, tmp_path: Path) -> None:
    weights = blob_of(oci, LARGE)
    oci.strange, oci.ranges = ["cut"], False
    client(oci).copy(weights, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == LARGE


@pytest.mark.parametrize("mode", ["other", "endless", "junk", "bomb", "silent", "drip"])
def test_a_wrong_or_endless_content_is_refused_in_time(
    oci: OciServer, tmp_path: Path, mode: str
) -> None:
    weights = blob_of(oci, LARGE)
    oci.strange = [mode] * 10
    with pytest.raises((SourceError, IntegrityError)) as caught:
        client(oci).copy(weights, tmp_path / "new")
    assert code_of(caught) in {"AD610", "AD611", "AD225", "AD226", "AD227"}
    assert not (tmp_path / "new").exists()


def test_a_blob_of_another_size_or_content_is_refused(oci: OciServer, tmp_path: Path) -> None:
    weights = blob_of(oci, b"w" * 1000)
    for content in (b"v" * 1000, b"w" * 999, b"w" * 1001, b""):
        oci.blobs[weights.digest] = content
        with pytest.raises((SourceError, IntegrityError)):
            client(oci).copy(weights, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_manifest_of_another_digest_is_refused(oci: OciServer) -> None:
    digest = client(oci).push(artifact(), "2.1.0")
    other = artifact(description="new").manifest.raw
    oci.manifests["team/refunds", digest] = other
    with pytest.raises(IntegrityError) as caught:
        client(oci).manifest(digest)
    assert code_of(caught) == "AD610"
    oci.manifests["team/refunds", "2.1.0"] = other
    oci.digest_header = digest
    with pytest.raises(IntegrityError):
        client(oci).manifest("2.1.0")


@pytest.mark.parametrize("raw", [b"", b"<html>", b"{}", b'{"schemaVersion": 2}', b"x" * (5 << 20)])
def test_what_is_not_a_manifest_is_refused(oci: OciServer, raw: bytes) -> None:
    oci.manifests["team/refunds", "2.1.0"] = raw
    with pytest.raises(SourceError) as caught:
        client(oci).manifest("2.1.0")
    assert code_of(caught) == "AD889"


def test_a_large_config_is_not_read_into_memory(oci: OciServer) -> None:
    with pytest.raises(SourceError) as caught:
        client(oci).read(Descriptor("a/b", sha256_bytes(b""), 1 << 40))
    assert code_of(caught) == "AD889"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ("POST blobs/uploads", 403, "AD220"),
        ("PUT blobs/uploads", 413, "AD892"),
        ("PUT blobs/uploads", 404, "AD892"),
        ("PUT manifests", 400, "AD892"),
        ("PUT manifests", 405, "AD892"),
        ("HEAD blobs", 401, "AD221"),
        ("GET manifests", 403, "AD220"),
    ],
)
def test_a_refusal_says_what_the_registry_says(
    oci: OciServer, step: str, status: int, code: str
) -> None:
    oci.status = {step: [status]}
    with pytest.raises(SourceError) as caught:
        one = client(oci)
        one.push(artifact(), "2.1.0")
        one.manifest("2.1.0")
    assert code_of(caught) == code
    if step.startswith(("P", "G")):
        assert "as the server says" in str(caught.value)


@pytest.mark.parametrize(
    "step", ["HEAD blobs", "POST blobs/uploads", "PUT blobs/uploads", "PUT manifests"]
)
def test_a_passing_failure_is_tried_again(oci: OciServer, step: str) -> None:
    oci.status = {step: [503, 429]}
    client(oci).push(artifact(), "2.1.0")
    assert client(oci).manifest("2.1.0") == artifact().manifest


def test_a_lasting_failure_ends(oci: OciServer) -> None:
    oci.status = {"GET manifests": [503] * 100}
    with pytest.raises(SourceError) as caught:
        client(oci).manifest("2.1.0")
    assert code_of(caught) == "AD223"
    assert len(oci.requests) == oci_http.TRIES


def test_a_registry_that_stores_another_manifest_is_noticed(oci: OciServer) -> None:
    oci.digest_header = sha256_bytes(b"x")
    with pytest.raises(SourceError) as caught:
        client(oci).push(artifact(), "2.1.0")
    assert code_of(caught) == "AD892"


def test_a_registry_that_never_answers_is_left(
    oci: OciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    oci.silent = True
    monkeypatch.setattr(oci_http, "TRIES", 1)
    one = client(oci)
    one._http.limits = type(one._http.limits)(silence=0.5)
    with pytest.raises(SourceError) as caught:
        one.manifest("2.1.0")
    assert code_of(caught) == "AD225"


def test_offline_no_request_is_sent(oci: OciServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OfflineError):
        client(oci, offline=True).manifest("2.1.0")
    monkeypatch.setenv("ADAPTERDOCK_OFFLINE", "1")
    with pytest.raises(OfflineError):
        client(oci).push(artifact(), "2.1.0")
    assert oci.requests == []


def test_a_host_that_is_not_there_is_named(oci: OciServer) -> None:
    oci.close()
    with pytest.raises(OfflineError) as caught:
        client(oci).manifest("2.1.0")
    assert code_of(caught) == "AD224"
    assert oci.host in str(caught.value)


def test_an_invalid_reference_is_refused() -> None:
    assert reference_of("oci://a/x:1") == OciReference("a", "x", "1")
    with pytest.raises(SourceError) as caught:
        reference_of("oci://a/X:1")
    assert code_of(caught) == "AD890"


# -- readers of headers and tokens ---------------------------------------------------------------


def test_challenges_are_read_with_quotes_and_several_schemes() -> None:
    assert challenges('Bearer realm="https://a/t?x=1,2",service="a \\"b\\"",scope=x') == [
        ("bearer", {"realm": "https://a/t?x=1,2", "service": 'a "b"', "scope": "x"})
    ]
    assert challenges('Basic realm="a", Bearer realm="b"') == [
        ("basic", {"realm": "a"}),
        ("bearer", {"realm": "b"}),
    ]
    assert challenges("Basic") == [("basic", {})]
    assert challenges("") == []


@given(some.text(some.sampled_from('Bearer basic="\\, \t\n'), max_size=60) | some.text())
def test_any_header_gives_challenges(header: str) -> None:
    assert all(scheme == scheme.lower() for scheme, _ in challenges(header))


@given(
    some.binary(max_size=60)
    | some.text(max_size=20).map(lambda t: json.dumps({"token": t}).encode())
)
def test_a_token_fits_into_a_header_or_there_is_none(raw: bytes) -> None:
    token = token_in(raw)
    assert token is None or (token.isascii() and token.isprintable() and " " not in token)


def test_a_manifest_on_the_registry_is_the_one_that_was_sent(oci: OciServer) -> None:
    digest = client(oci).push(artifact(), "2.1.0")
    assert read_manifest(oci.manifests["team/refunds", digest]) == artifact().manifest
