"""The Hub, through its real client against a server that speaks its protocol."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import OfflineError, SourceError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.hub_repo import blob_id
from support.hub_server import HubServer

CONFIG = b'{"peft_type": "LORA", "r": 8}'
WEIGHTS = bytes(range(251)) * 40_000
FILES = {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}
TOKEN = "hf_TestTokenThatMustNeverBeShown"
HERE = Where(file="adapters.yaml", path=("adapters", "tone", "source"), line=5)


def opened(text: str = "hf://acme/tone", **options: object) -> Folder:
    return open_source(Source.parse(text), directory=Path.cwd(), where=HERE, **options)  # type: ignore[arg-type]


@contextmanager
def refused(code: str) -> Iterator[None]:
    """The block fails with this code, at the right place, and shows no token."""
    with pytest.raises(SourceError) as caught:
        yield
    told = "".join(traceback.format_exception(caught.value))
    assert caught.value.code == code, told
    assert caught.value.findings[0].where == HERE
    assert TOKEN not in told
    assert "s3cr3t" not in str(caught.value)


def test_plain_and_lfs_files_are_pinned_by_different_digests(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    files = opened().files()
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert files["adapter_config.json"].version == blob_id(CONFIG)
    assert files["adapter_config.json"].sha256 is None
    assert files["adapter_model.safetensors"].sha256 == f"sha256:{digest}"
    assert files["adapter_model.safetensors"].version == digest


def test_a_branch_is_resolved_to_its_commit_once(hub: HubServer) -> None:
    first = hub.commit("acme/tone", FILES)
    folder = opened()
    assert folder.revision == first
    hub.commit("acme/tone", {"adapter_config.json": b"{}"})
    assert folder.pinned == Source.parse(f"hf://acme/tone@{first}")
    assert folder.read("adapter_config.json") == CONFIG
    assert hub.count("/api/") == 1


def test_a_pinned_commit_reads_the_old_content_after_the_branch_moved(hub: HubServer) -> None:
    first = hub.commit("acme/tone", FILES)
    newer = hub.commit("acme/tone", {"adapter_config.json": b"{}", "new.txt": b"1"})
    old = opened(f"hf://acme/tone@{first}")
    assert set(old.files()) == set(FILES)
    assert old.read("adapter_config.json") == CONFIG
    assert opened().read("adapter_config.json") == b"{}"
    assert opened().revision == newer


def test_the_locked_commit_wins_over_the_branch_that_is_written(hub: HubServer) -> None:
    first = hub.commit("acme/tone", FILES)
    hub.commit("acme/tone", {"adapter_config.json": b"{}"})
    folder = opened("hf://acme/tone@main", revision=first)
    assert folder.revision == first
    assert folder.read("adapter_config.json") == CONFIG


def test_a_tag_and_a_branch_with_a_slash_are_revisions(hub: HubServer) -> None:
    first = hub.commit("acme/tone", FILES, branch="feature/x")
    hub.tag("acme/tone", "v2", first)
    assert opened("hf://acme/tone@v2").revision == first
    assert opened("hf://acme/tone@feature%2Fx").read("adapter_config.json") == CONFIG


def test_a_locked_file_missing_from_the_commit_is_reported(hub: HubServer) -> None:
    first = hub.commit("acme/tone", FILES)
    other = hub.commit("acme/tone", {**FILES, "adapter_config.json": b"{}"})
    pins = opened().files()
    with refused("AD228"):
        opened(files=pins, revision=first).files()
    hub.commit("acme/tone", {"README.md": b""})
    with refused("AD229"):
        opened(files=pins).files()
    assert opened(files=pins, revision=other).read("adapter_config.json") == b"{}"


def test_a_folder_in_a_repository_has_paths_of_its_own(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("acme/tone", {f"a/b/{name}": content for name, content in FILES.items()})
    folder = opened("hf://acme/tone/a/b")
    assert set(folder.files()) == set(FILES)
    place = folder.download("adapter_model.safetensors", tmp_path / "unused")
    assert place.read_bytes() == WEIGHTS
    assert not (tmp_path / "unused").exists()
    with refused("AD201"):
        opened("hf://acme/tone/a/bb").files()


def test_hidden_files_are_not_in_the_folder(hub: HubServer) -> None:
    hub.commit("acme/tone", {**FILES, ".gitattributes": b"*.bin filter=lfs"})
    assert set(opened().files()) == set(FILES)


def test_a_name_that_leads_out_of_the_repository_is_refused(hub: HubServer) -> None:
    hub.commit("acme/tone", {**FILES, "../../evil.sh": b"#!"})
    with refused("AD203"):
        opened().files()


def test_more_files_than_an_adapter_has_are_refused(hub: HubServer) -> None:
    hub.commit("acme/tone", {f"{i}.txt": b"" for i in range(10_001)})
    with refused("AD205"):
        opened().files()


def test_a_missing_repository_says_that_it_may_be_private(hub: HubServer) -> None:
    with refused("AD210"):
        opened("hf://acme/none").files()
    with pytest.raises(SourceError, match="private") as caught:
        opened("hf://acme/none").files()
    assert "HF_TOKEN" in str(caught.value)


def test_a_private_repository_opens_with_its_token_only(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/tone", FILES)
    hub.private.add("acme/tone")
    hub.tokens.add(TOKEN)
    with refused("AD210"):
        opened().files()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert opened().read("adapter_config.json") == CONFIG
    monkeypatch.setenv("HF_TOKEN", TOKEN + "Wrong")
    with refused("AD221"):
        opened().files()


def test_a_token_that_the_hub_rejects_is_said_to_be_rejected_in_the_same_words_for_each_source(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN + "Wrong")
    messages = set[str]()
    for name in ("acme/one", "acme/two"):
        hub.commit(name, {"adapter_config.json": b"{}"})
        where = Where("m.yaml", ("adapters", name, "source"))
        with pytest.raises(SourceError) as caught:
            open_source(Source.parse(f"hf://{name}"), directory=Path(), where=where).files()
        finding = caught.value.findings[0]
        assert (finding.code, finding.found) == ("AD221", "the token in HF_TOKEN")
        assert "Replace the token" in str(finding.hint) and "AWS" not in str(finding.hint)
        assert TOKEN not in str(finding)
        messages.add(finding.message)
    assert messages == {f"127.0.0.1:{hub.port} rejected the token (HTTP 401)"}
    monkeypatch.delenv("HF_TOKEN")
    assert open_source(Source.parse("hf://acme/one"), directory=Path()).files(), "needs no token"


def test_a_gated_repository_lists_but_does_not_read(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.commit("acme/tone", FILES)
    hub.gated.add("acme/tone")
    folder = opened()
    assert set(folder.files()) == set(FILES)
    with refused("AD211"):
        folder.read("adapter_config.json")
    with refused("AD211"):
        folder.download("adapter_model.safetensors", tmp_path / "x")
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert opened().read("adapter_config.json") == CONFIG


def test_other_refusals_have_their_codes(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    with refused("AD212"):
        opened("hf://acme/tone@nonesuch").files()
    with refused("AD212"):
        opened("hf://acme/tone@" + "0" * 40).files()
    hub.disabled.add("acme/tone")
    with refused("AD213"):
        opened().files()


@pytest.mark.parametrize(
    ("mode", "code"), [(500, "AD223"), (503, "AD223"), (429, "AD222"), (403, "AD220")]
)
def test_a_status_has_its_code_when_listing_and_when_reading(
    hub: HubServer, mode: int, code: str
) -> None:
    hub.commit("acme/tone", FILES)
    folder = opened()
    folder.files()
    hub.fail(mode)
    with refused(code):
        opened().files()
    with refused(code):
        folder.read("adapter_config.json")


def test_a_rate_limit_says_how_long_to_wait(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail(429)
    with pytest.raises(SourceError, match="Wait 7 seconds"):
        opened().files()


def test_one_failure_of_the_server_is_retried(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail(502, "/api/", times=1)
    folder = opened()
    assert set(folder.files()) == set(FILES)
    hub.fail(503, "/resolve/", times=1)
    assert folder.read("adapter_config.json") == CONFIG


def test_the_token_never_goes_to_the_host_that_stores_the_weights(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.commit("acme/tone", FILES)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = opened()
    folder.read("adapter_model.safetensors", 0, 100)
    folder.download("adapter_model.safetensors", tmp_path / "x")
    stored = [r for r in hub.requests if r.host.startswith("localhost")]
    asked = [r for r in hub.requests if not r.host.startswith("localhost")]
    assert stored and not any(TOKEN in str(r.headers) for r in stored)
    assert asked and all(TOKEN in str(r.headers) for r in asked)


def test_a_read_transfers_its_range_and_not_the_file(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    folder = opened()
    assert folder.read("adapter_model.safetensors", 5_000_000, 1000) == WEIGHTS[5_000_000:5_001_000]
    assert folder.bytes_read == hub.bytes_sent == 1000


def test_a_server_that_ignores_range_is_read_no_further_than_needed(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("ignore-range")
    folder = opened()
    assert folder.read("adapter_model.safetensors", 8, 100) == WEIGHTS[8:108]
    assert 108 <= folder.bytes_read <= 108 + 64 * 1024
    with refused("AD227"):
        folder.read("adapter_model.safetensors", 9_000_000, 10)
    assert folder.bytes_read <= 108 + 64 * 1024


def test_an_answer_with_another_range_is_refused(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("wrong-range")
    with refused("AD227"):
        opened().read("adapter_config.json", 2, 5)


def test_an_answer_from_another_commit_is_refused(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("other-commit")
    with refused("AD228"):
        opened().read("adapter_config.json")


def test_a_dropped_connection_is_resumed_where_it_broke(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("drop", "/lfs/", times=2)
    folder = opened()
    assert folder.read("adapter_model.safetensors") == WEIGHTS
    assert hub.count("/lfs/", "GET") == 3


def test_a_body_that_always_ends_early_is_an_error(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("truncate")
    with refused("AD226"):
        opened().read("adapter_model.safetensors")


@pytest.mark.slow
def test_a_download_that_always_ends_early_leaves_nothing_behind(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.commit("acme/tone", {"big.safetensors": WEIGHTS, "note.txt": b"x" * 64})
    hub.fail("truncate", "note.txt")
    folder = opened()
    with refused("AD226"):
        folder.download("note.txt", tmp_path / "x")
    assert folder.local("note.txt") is None
    assert not (tmp_path / "x").exists()
    hub.heal()
    assert folder.download("note.txt", tmp_path / "x").read_bytes() == b"x" * 64


def test_a_damaged_copy_in_the_cache_is_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("acme/tone", FILES)
    folder = opened()
    place = folder.download("adapter_model.safetensors", tmp_path / "x")
    place.resolve().write_bytes(WEIGHTS[:1000])
    assert folder.local("adapter_model.safetensors") is None
    assert folder.read("adapter_model.safetensors", 0, 2000) == WEIGHTS[:2000]
    assert folder.download("adapter_model.safetensors", tmp_path / "x").read_bytes() == WEIGHTS


def test_cached_files_need_no_request(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.commit("acme/tone", FILES)
    first = opened()
    pins = first.files()
    for name in FILES:
        first.download(name, tmp_path / name)
    hub.requests.clear()
    again = opened(revision=commit, files=pins)
    assert again.read("adapter_model.safetensors") == WEIGHTS
    assert again.local("adapter_config.json") is not None
    assert hub.requests == [] and again.bytes_read == 0


def test_offline_opens_what_the_cache_has_by_branch_and_by_commit(
    hub: HubServer, tmp_path: Path
) -> None:
    commit = hub.commit("acme/tone", FILES)
    first = opened()
    for name in FILES:
        first.download(name, tmp_path / name)
    hub.requests.clear()
    for text in ("hf://acme/tone", f"hf://acme/tone@{commit}"):
        folder = opened(text, offline=True)
        assert folder.revision == commit
        assert folder.files() == first.files()
        assert folder.read("adapter_model.safetensors", 3, 4) == WEIGHTS[3:7]
        assert folder.local("adapter_config.json") is not None
    assert hub.requests == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "ADAPTERDOCK_OFFLINE"])
def test_offline_without_the_cache_names_the_missing_file(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    commit = hub.commit("acme/tone", FILES)
    online = opened()
    pins = online.files()
    monkeypatch.setenv(variable, "yes")
    hub.requests.clear()
    with refused("AD233"):
        opened().files()
    with refused("AD233"):
        opened(f"hf://acme/tone@{commit}").files()
    locked = opened(revision=commit, files=pins)
    assert locked.files() == pins and locked.local("adapter_config.json") is None
    with refused("AD233"):
        locked.read("adapter_config.json")
    with refused("AD233"):
        locked.download("adapter_config.json", tmp_path / "x")
    with pytest.raises(OfflineError):
        opened().files()
    assert hub.requests == []


def test_offline_a_partial_cache_has_the_complete_listing(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import constants, snapshot_download

    hub.commit("acme/tone", FILES)
    snapshot_download(
        "acme/tone",
        allow_patterns=["*.json"],
        endpoint=hub.endpoint,
        cache_dir=constants.HF_HUB_CACHE,
    )
    folder = opened(offline=True)
    assert folder.files()["adapter_model.safetensors"].size == len(WEIGHTS)
    assert folder.read("adapter_config.json") == CONFIG
    with refused("AD233"):
        folder.read("adapter_model.safetensors", 0, 8)


def test_a_revision_cannot_name_a_place_outside_the_cache(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.commit("acme/tone", FILES)
    hub.tag("acme/tone", "../../../escaped", commit)
    # The language refuses such a revision; a caller who makes one cannot escape either.
    source = Source("hf", "acme/tone", "../../../escaped")
    folder = open_source(source, directory=Path.cwd(), where=HERE)
    folder.download("adapter_config.json", tmp_path / "x")
    assert not list(Path(folder.local("adapter_config.json") or "").parents[5].rglob("escaped"))


def test_a_closed_endpoint_is_reported_at_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
        began = time.monotonic()
        with refused("AD224"):
            opened().files()
        assert time.monotonic() - began < 5
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    with refused("AD224"):
        opened().files()


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    hub.fail("slow")
    began = time.monotonic()
    with refused("AD225"):
        opened().files()
    assert time.monotonic() - began < 20


def test_storage_options_name_another_hub_and_its_token(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/tone", FILES)
    hub.private.add("acme/tone")
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    options = {"endpoint": hub.endpoint, "token": TOKEN}
    assert opened(storage_options=options).read("adapter_config.json") == CONFIG
    with refused("AD232"):
        opened(storage_options={"anon": True})


def test_a_process_of_its_own_reads_its_settings_from_the_environment(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    code = (
        "from pathlib import Path\n"
        "from adapterdock.manifests.language.source import Source\n"
        "from adapterdock.registry.sources.open import open_source\n"
        "folder = open_source(Source.parse('hf://acme/tone'), directory=Path('.'))\n"
        "print(folder.read('adapter_config.json').decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == CONFIG.decode()


def test_a_cache_of_another_user_is_reported_as_unwritable_not_as_a_token_problem(
    hub: HubServer, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    hub.commit("acme/tone", FILES)
    folder = opened()
    folder.files()
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with refused("AD237"):
            folder.download("adapter_config.json", tmp_path / "x")
    finally:
        os.seteuid(user)


def test_files_of_one_folder_can_be_fetched_at_the_same_time(
    hub: HubServer, tmp_path: Path
) -> None:
    files = {f"model-{n}.safetensors": bytes([n]) * 300_000 for n in range(8)}
    hub.commit("acme/base", files)
    folder = opened("hf://acme/base")
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda name: folder.download(name, tmp_path / name), files))
    assert [place.read_bytes() for place in places] == list(files.values())
    assert folder.bytes_read == 8 * 300_000
    assert hub.count("/api/") == 1
