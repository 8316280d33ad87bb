"""The grammar of sources: what it accepts and refuses, and that it round-trips."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.language.source import Source, SourceSyntaxError
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st

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
    "registry://team/refunds": Source("registry", "team/refunds"),
    "registry://team/refunds@^2.1": Source("registry", "team/refunds", "^2.1"),
    "registry://team/refunds@prod": Source("registry", "team/refunds", "prod"),
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
    *("registry://team", "registry://team/a/b", "registry://team/Refunds", "registry://team/a@"),
    *("registry://team/a@../b", "registry:///a"),
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
        *("^2.1", "\u202e", "\ud800"),
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
    with pytest.raises(ValueError, match="not a local source"):
        Source.parse("s3://b/a").local_path(tmp_path)


@pytest.mark.parametrize("text", ["s3:bucket/tone", "s3:/bucket/tone"])
def test_an_incomplete_scheme_is_refused_with_a_suggestion(text: str) -> None:
    with pytest.raises(SourceSyntaxError, match=r"did you mean s3://bucket/tone\?"):
        Source.parse(text)
