"""References to artifacts in OCI registries."""

from __future__ import annotations

import pytest
from adapterdock.manifests.language.oci_reference import OciReference, parse_reference
from hypothesis import given
from hypothesis import strategies as some

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("oci://a.example/team/x:2.1.0", OciReference("a.example", "team/x", "2.1.0")),
        ("oci://a.example:5000/x", OciReference("a.example:5000", "x")),
        (f"oci://a/x@{DIGEST}", OciReference("a", "x", None, DIGEST)),
        (f"oci://a/x:t@{DIGEST}", OciReference("a", "x", "t", DIGEST)),
        ("oci://[::1]:5000/x:t", OciReference("[::1]:5000", "x", "t")),
        ("oci://a/x__y/z--w.v:T_t", OciReference("a", "x__y/z--w.v", "T_t")),
    ],
)
def test_a_reference_has_host_repository_tag_and_digest(text: str, reference: OciReference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "oci://a/Team/x:1",
        "oci://A/x:1",
        "oci://a/../x:1",
        "oci://a//x",
        "oci://a/x/",
        "oci://a/x:2.1.0+a",
        "oci://a/x:" + "t" * 129,
        "oci://a/" + "x" * 256,
        "oci://user:password@a/x:1",
        "oci://a/x@sha256:00",
        "oci://a/x:1\n",
        "oci://a/x?y",
        "oci://a",
        "a/x:1",
        "oci:///x",
        "",
    ],
)
def test_what_a_registry_would_not_accept_is_no_reference(text: str) -> None:
    assert parse_reference(text) is None


def test_only_this_machine_is_asked_without_tls() -> None:
    for host, plain in (
        *(("localhost:5000", True), ("127.0.0.1", True), ("[::1]:80", True)),
        *(("localhost.example", False), ("127.0.0.1.example", False), ("a", False)),
    ):
        assert OciReference(host, "x").plain is plain
        assert OciReference(host, "x").api.startswith("http:" if plain else "https:")


def test_docker_hub_s_names_are_those_of_docker() -> None:
    assert OciReference("docker.io", "busybox").api == (
        "https://registry-1.docker.io/v2/library/busybox"
    )
    assert OciReference("docker.io", "a/b").api == "https://registry-1.docker.io/v2/a/b"


_PIECES = ["oci://", "a", "B", "/", ":", "@", DIGEST, ".", "-", "_", "0", "[", "]", "\n", "é", "+"]


@given(some.lists(some.sampled_from(_PIECES), max_size=12).map("".join) | some.text())
def test_any_text_is_a_reference_that_is_written_the_same_or_none(text: str) -> None:
    reference = parse_reference(text)
    assert reference is None or str(reference) == text
