"""The grammar of sources: what it accepts and refuses, and that it round-trips."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.language.source import Source, SourceSyntaxError
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st

HEX = "0123456789abcdef" * 4

GOOD = {
    "./adapters/legal": Source("file", "./adapters/legal"),
    "./adapters/legal/": Source("file", "./adapters/legal"),
    "..": Source("file", ".."),
    "/": Source("file", "/"),
    "~/adapters": Source("file", "~/adapters"),
    "./näme with space": Source("file", "./näme with space"),
    "file:///srv/a%20b/": Source("file", "/srv/a b"),
    "hf://gpt2": Source("hf", "gpt2"),
    "hf://acme/tone": Source("hf", "acme/tone"),
    "hf://models/acme/tone": Source("hf", "acme/tone"),
    "hf://acme/tone@v2/checkpoint-1000": Source("hf", "acme/tone", "v2", "checkpoint-1000"),
    "hf://acme/tone/a/b": Source("hf", "acme/tone", None, "a/b"),
    "hf://acme/tone@refs/pr/7/a": Source("hf", "acme/tone", "refs/pr/7", "a"),
    "hf://acme/tone@refs%2Fpr%2F7": Source("hf", "acme/tone", "refs/pr/7"),
    "hf://acme/tone@feature%2Fx/a": Source("hf", "acme/tone", "feature/x", "a"),
    "hf://acme/tone/folder@2/a": Source("hf", "acme/tone", None, "folder@2/a"),
    "s3://bucket": Source("s3", "bucket"),
    "S3://bucket/a/b/": Source("s3", "bucket/a/b"),
    "s3://bucket/a b/ü#1": Source("s3", "bucket/a b/ü#1"),
    "abfss://box@account.dfs.core.windows.net/a": Source(
        "abfss", "box@account.dfs.core.windows.net/a"
    ),
    "https://[::1]:9000/a": Source("https", "[::1]:9000/a"),
    "https://host:443/a%20b": Source("https", "host:443/a%20b"),
    "sftp://me@host/a": Source("sftp", "me@host/a"),
    "memory:///a": Source("memory", "/a"),
    "registry://team/refunds@^2.1": Source("registry", "team/refunds", "^2.1"),
    "registry://team/refunds@prod": Source("registry", "team/refunds", "prod"),
    "registry://Team/org/team/refunds@2.1.0-rc.1": Source(
        "registry", "Team/org/team/refunds", "2.1.0-rc.1"
    ),
    "registry://team/refunds@>=2, <3": Source("registry", "team/refunds", ">=2, <3"),
    f"registry://team/refunds@sha256:{HEX}": Source("registry", "team/refunds", f"sha256:{HEX}"),
    "oci://host/repo": Source("oci", "host/repo"),
    "OCI://host:5000/team/refunds:2.1.0": Source("oci", "host:5000/team/refunds:2.1.0"),
    f"oci://host/repo@sha256:{HEX}": Source("oci", "host/repo", f"sha256:{HEX}"),
    f"oci://host/repo:v1@sha256:{HEX}": Source("oci", "host/repo:v1", f"sha256:{HEX}"),
    "oci-archive:out.oci.tar": Source("oci-archive", "out.oci.tar"),
    "oci-archive:../a b/out.tar": Source("oci-archive", "../a b/out.tar"),
    "oci-archive:/srv/out.tar:team/refunds:2.1.0": Source(
        "oci-archive", "/srv/out.tar", None, "team/refunds:2.1.0"
    ),
    f"oci-archive:~/out.tar:tone@sha256:{HEX}": Source(
        "oci-archive", "~/out.tar", f"sha256:{HEX}", "tone"
    ),
    f"oci-archive:out@1.tar@sha256:{HEX}": Source("oci-archive", "out@1.tar", f"sha256:{HEX}"),
}

BAD = [
    *("", " ./a", "./a ", "./a /", "./a\n", "./a\x00b", "./a\u202eb", "a", "acme/tone", "~me/a"),
    *("C:/adapters", "C:\\adapters", "\\\\server\\share", ".\\a", "//server/share"),
    *("file:a", "file:/a", "file://host/a", "file:///%00", "file:///a%ff", "file:////a"),
    *("hf://", "hf:///a", "hf://datasets/a/b", "hf://spaces/a/b", "hf://buckets/a/b"),
    *("hf://acme/tone@", "hf://acme/tone@/a", "hf://acme/to--ne", "hf://acme/tone.git"),
    *("hf://acme/.tone", "hf://acme/tone-", "hf://acme/a..b", "hf://acme/tone/../other"),
    *(
        "hf://acme/tone@..%2F..%2Fx",
        "hf://acme/tone@a%0Ab",
        "hf://acme/tone@a b",
        "hf://acme/tone@a%07b",
    ),
    *("hf://acme/tone@v1.lock", "hf://acme/tone@%ff", "hf://acme/tone//a", "hf://acme/tone/*"),
    *("hf://models/models/x", "hf://ac me/tone", "hf://" + "a" * 97, "hf://acmé/tone"),
    *("s3://", "s3:///a", "s3://bucket/../a", "s3://bucket/./a", "s3://bucket//a"),
    *("s3://bucket/a?versionId=1", "s3://bucket/*", "s3://bucket/%2e%2e/a", "s3://bucket/a\\b"),
    *("s3://key:secret@bucket/a", "https://user@host/a", "https://u:p@host/a", "https:///a"),
    *("https://host/a#b", "https://host/a?b=c", "https://host:99999/a", "https://host:/a"),
    *("https://host/%2e%2e/a", "https://host/a%2f..%2fb", "https://[::1/a", "https://host/a b"),
    *("local:///a", "simplecache::s3://bucket/a", "zip://a::s3://bucket/a.zip"),
    *("registry://team", "registry://team/a/b", "registry://team/Refunds@1", "registry://t/a@"),
    *("registry://team/a@../b", "registry:///a", "registry://t/a/b/c/d@1", "registry://t/a//b@1"),
    *("registry://t/con@1", "registry://t/a/versions@1", "registry://te am/a@1", "registry://t@1"),
    *("registry://t/a@latest!", "registry://t/a@v2", "registry://t/a@1.2.3+x", "registry://t/a@*"),
    *("registry://t/a@sha256:0", "registry://t/a@sha256", f"registry://t/a@sha256:{HEX.upper()}"),
    *(
        "oci://",
        "oci://host",
        "oci:///repo",
        "oci://host/Repo",
        "oci://host/repo:",
        "oci://h/r:a/b",
    ),
    *("oci://host/repo@sha256:0", f"oci://host/repo@md5:{HEX}", "oci://bucket@namespace/a"),
    *("oci://me:secret@host/repo", "oci://host/../repo", "oci://host/repo:a+b", "oci://host/r?a=1"),
    *("oci-archive:", "oci-archive:/", "oci-archive://host/a", "oci-archive:..", "oci-archive:a/"),
    *("oci-archive: a.tar", "oci-archive:a.tar:", "oci-archive:a.tar:/x", "oci-archive:a:x//y"),
    *("oci-archive:C:\\a.tar", "oci-archive:C:/a.tar", "oci-archive:~me/a", "oci-archive:a:b c"),
]


@pytest.mark.parametrize(("text", "source"), GOOD.items())
def test_a_source_is_split_into_its_parts(text: str, source: Source) -> None:
    assert Source.parse(text) == source


@pytest.mark.parametrize("text", GOOD)
def test_a_source_round_trips(text: str) -> None:
    source = Source.parse(text)
    assert Source.parse(str(source)) == source
    assert str(Source.parse(str(source))) == str(source)


@pytest.mark.parametrize("text", BAD)
def test_an_invalid_source_is_refused(text: str) -> None:
    with pytest.raises(SourceSyntaxError):
        Source.parse(text)


def test_a_bare_name_is_refused_with_its_possible_meanings() -> None:
    with pytest.raises(SourceSyntaxError, match=r"write \./acme/tone or hf://acme/tone"):
        Source.parse("acme/tone")


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(SourceSyntaxError) as caught:
        Source.parse("https://me:hunter22@host/a")
    assert "hunter22" not in str(caught.value)


PIECES = st.sampled_from(
    [
        *("hf://", "s3://", "https://", "file://", "registry://", "memory://", "./", "../"),
        *("~", "/", "acme", "tone", "a b", "@", "v1", "refs/pr/1", "%2F", "%", "..", ".", ":"),
        *("[::1]", "?", "#", "models/", "datasets/", "é", "*", "\\", "--", ".git", "-", "_"),
        *("^2.1", "\u202e", "\ud800", "oci://", "oci-archive:", f"@sha256:{HEX}", "prod", "<3"),
        *("2.1.0", "a.tar", "team/refunds", ">=1,", " ", "-rc.1"),
    ]
)
TEXTS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=9).map("".join))


@settings(deadline=None)
@given(TEXTS)
def test_any_text_is_a_source_that_round_trips_or_is_refused(text: str) -> None:
    try:
        source = Source.parse(text)
    except SourceSyntaxError:
        return
    assert Source.parse(str(source)) == source
    assert Source.parse(source.normalised()).normalised() == source.normalised()
    assert not source.is_commit or source.revision is not None


@settings(deadline=None)
@given(st.text("ab-_.A1é/", max_size=12))
def test_hub_ids_follow_the_rules_of_the_hubs_own_client(repo: str) -> None:
    try:
        validate_repo_id(repo)
        good = "/" not in repo or all(repo.split("/"))
    except HFValidationError:
        good = False
    try:
        source = Source.parse(f"hf://{repo}")
        ours = (source.location, source.path) == (repo, "")
    except SourceSyntaxError:
        ours = False
    if repo.rstrip("/") == repo and repo.count("/") < 2:
        assert ours == good


def test_a_revision_is_pinned_and_checked() -> None:
    source = Source.parse("hf://acme/tone@v2/a")
    assert str(source.at("0" * 40)) == f"hf://acme/tone@{'0' * 40}/a"
    assert source.at("0" * 40).is_commit
    assert not source.is_commit
    assert str(Source.parse("registry://t/a@^1").at("1.2.3")) == "registry://t/a@1.2.3"
    for text in ("oci://host/repo:v1", "oci-archive:a.tar", "oci-archive:a.tar:team/a:1"):
        published = Source.parse(text)
        assert str(published.at(f"sha256:{HEX}")) == f"{text}@sha256:{HEX}"
        with pytest.raises(SourceSyntaxError):
            published.at("v2")
    with pytest.raises(SourceSyntaxError):
        Source.parse("registry://t/a@^1").at("../../x")
    with pytest.raises(SourceSyntaxError):
        source.at("../../x")
    with pytest.raises(ValueError, match="has no revision"):
        Source.parse("s3://b/a").at("v1")


def test_each_place_has_one_normalised_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("/usr")

    def spelled(text: str) -> str:
        return Source.parse(text).normalised(tmp_path)

    assert spelled("./in/../in/") == "./in"
    assert spelled(f"{tmp_path}/in") == "./in"
    assert spelled("./link/lib/..") == "/usr"
    assert spelled("oci-archive:in/../a.tar:tone") == "oci-archive:./a.tar:tone"
    assert spelled("oci-archive:/usr/lib/../a.tar") == "oci-archive:/usr/a.tar"
    assert Source.parse("oci-archive:a/../b.tar").normalised() == "oci-archive:./b.tar"
    assert spelled("../x") == (tmp_path.resolve().parent / "x").as_posix()
    assert Source.parse("HTTPS://Host.Example:443/A").normalised() == "https://host.example/A"
    assert Source.parse("./a/../b").normalised() == "./b"
    assert Source.parse("./~a").normalised() == "./~a"
    assert Source.parse("./..a").normalised() == "./..a"
    monkeypatch.setenv("HOME", "/home/me")
    assert Source.parse("~/../x").normalised() == "/home/x"


def test_a_local_path_is_relative_to_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Source.parse("./a").local_path(tmp_path) == tmp_path / "a"
    assert Source.parse("/a").local_path(tmp_path) == Path("/a")
    assert Source.parse("~/a").local_path(tmp_path) == Path("/home/me/a")
    assert Source.parse("./~").local_path(tmp_path) == tmp_path / "~"  # a folder, not a home
    assert Source.parse("oci-archive:a.tar:b").local_path(tmp_path) == tmp_path / "a.tar"
    assert not Source.parse("oci-archive:a.tar:b").is_local
    with pytest.raises(ValueError, match="not a local source"):
        Source.parse("s3://b/a").local_path(tmp_path)


def test_a_registry_source_without_a_version_is_told_what_it_may_select() -> None:
    with pytest.raises(SourceSyntaxError, match=r"write registry://team/refunds@ and a version"):
        Source.parse("registry://team/refunds")
    with pytest.raises(SourceSyntaxError, match=r"invalid version 'latest!' after '@'"):
        Source.parse("registry://team/refunds@latest!")


@pytest.mark.parametrize("text", ["s3:bucket/tone", "s3:/bucket/tone"])
def test_an_incomplete_scheme_is_refused_with_a_suggestion(text: str) -> None:
    with pytest.raises(SourceSyntaxError, match=r"did you mean s3://bucket/tone\?"):
        Source.parse(text)
