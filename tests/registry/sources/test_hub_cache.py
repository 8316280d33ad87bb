"""The Hub's own cache, shared with the real client: what is wrong in it is found and replaced."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import IntegrityError, SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.fetch import fetch
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from adapterdock.registry.store.store import Store
from support.hub_repo import blob_id
from support.hub_server import HubServer

CONFIG = b'{"peft_type": "LORA", "r": 8}'
WEIGHTS = bytes(range(251)) * 4000
NAMES = ("adapter_config.json", "adapter_model.safetensors")
FILES: dict[str, bytes] = {NAMES[0]: CONFIG, NAMES[1]: WEIGHTS}


def opened(**options: object) -> Folder:
    return open_source(Source.parse("hf://acme/tone"), directory=Path.cwd(), **options)  # type: ignore[arg-type]


def cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def as_the_client(hub: HubServer, name: str) -> Path:
    """The file as the Hub's own client gets it."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download("acme/tone", name, endpoint=hub.endpoint, cache_dir=cache()))


def unfinished() -> list[Path]:
    return [p for p in cache().rglob("*") if p.name.endswith((".incomplete", ".tmp"))]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pulled(folder: Folder, store: Store) -> dict[str, bytes]:
    facts = list(folder.files().values())
    return {name: one.path.read_bytes() for name, one in fetch(folder, facts, store).items()}


def test_our_downloads_are_where_the_client_looks(hub: HubServer, store: Store) -> None:
    commit = hub.commit("acme/tone", FILES)
    assert pulled(opened(), store) == FILES
    hub.requests.clear()
    for name, content in FILES.items():
        place = cache() / "models--acme--tone/snapshots" / commit / name
        assert as_the_client(hub, name) == place
        assert place.is_symlink() and place.read_bytes() == content
    assert hub.count(method="GET") == 0
    blobs = {p.name for p in (cache() / "models--acme--tone/blobs").iterdir()}
    assert blobs == {blob_id(CONFIG), hashlib.sha256(WEIGHTS).hexdigest()}
    assert (cache() / "models--acme--tone/refs/main").read_text() == commit


def test_files_that_the_client_downloaded_are_used_in_place(hub: HubServer, store: Store) -> None:
    hub.commit("acme/tone", FILES)
    for name in NAMES:
        as_the_client(hub, name)
    hub.requests.clear()
    assert pulled(opened(), store) == FILES
    assert hub.count("/resolve/") == 0


@pytest.mark.parametrize("damage", ["other bytes", "cut short", "too long", "empty"])
def test_a_damaged_copy_does_not_block_a_pull(hub: HubServer, store: Store, damage: str) -> None:
    hub.commit("acme/tone", FILES)
    for name, content in FILES.items():
        blob = as_the_client(hub, name).resolve()
        wrong = {
            "other bytes": content[::-1],
            "cut short": content[:-7],
            "too long": content + b"x",
            "empty": b"",
        }[damage]
        blob.write_bytes(wrong)
    held = as_the_client(hub, NAMES[1]).open("rb")  # another program reads the old file
    assert pulled(opened(), store) == FILES
    assert as_the_client(hub, NAMES[1]).read_bytes() == WEIGHTS
    with held:
        assert held.read(100) != WEIGHTS[:100] or damage in ("cut short", "too long")
    hub.requests.clear()
    assert pulled(opened(), store) == FILES
    assert hub.count("/resolve/") == 0 and unfinished() == []


def test_a_damaged_blob_without_a_name_is_replaced_and_a_sound_one_is_linked(
    hub: HubServer, store: Store
) -> None:
    hub.commit("acme/tone", FILES)
    places = [as_the_client(hub, name) for name in NAMES]
    for place in places:
        blob = place.resolve()
        place.unlink()
        if place.name == NAMES[1]:
            blob.write_bytes(WEIGHTS[::-1])
    hub.requests.clear()
    assert pulled(opened(), store) == FILES
    assert hub.count(f"/{NAMES[0]}") == 0 and hub.count("/lfs/", "GET") == 1


def test_remains_of_a_killed_client_are_not_used(hub: HubServer, store: Store) -> None:
    hub.commit("acme/tone", FILES)
    blobs = cache() / "models--acme--tone/blobs"
    blobs.mkdir(parents=True)
    left = blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.incomplete"
    left.write_bytes(WEIGHTS[::-1][:5000])
    assert pulled(opened(), store) == FILES
    assert left.read_bytes() == WEIGHTS[::-1][:5000]  # it may be another client's


def test_a_damaged_config_is_never_read(hub: HubServer) -> None:
    hub.commit("acme/tone", FILES)
    as_the_client(hub, NAMES[0]).resolve().write_bytes(CONFIG.replace(b"8", b"9"))
    assert opened().read(NAMES[0]) == CONFIG
    with pytest.raises(SourceError) as caught:
        opened(offline=True).read(NAMES[0])
    assert caught.value.code == "AD613"
    assert "without --offline" in (caught.value.findings[0].hint or "")


def test_offline_a_damaged_file_is_named_and_a_sound_one_is_used(
    hub: HubServer, store: Store
) -> None:
    hub.commit("acme/tone", FILES)
    place = [as_the_client(hub, name) for name in NAMES][1]
    hub.requests.clear()
    assert pulled(opened(offline=True), store) == FILES
    place.resolve().write_bytes(WEIGHTS[::-1])
    with pytest.raises(SourceError) as caught:
        pulled(opened(offline=True), store)
    assert caught.value.code == "AD613" and str(place.resolve()) in str(caught.value)
    assert hub.requests == []


def test_other_bytes_than_listed_are_an_error_and_enter_no_cache(
    hub: HubServer, store: Store, tmp_path: Path
) -> None:
    hub.commit("acme/tone", FILES)
    folder = opened()
    for name in NAMES:
        folder.files()
        hub.fail("other", name)
        with pytest.raises(IntegrityError) as caught:
            folder.download(name, tmp_path / name)
        assert caught.value.code == "AD610"
        assert folder.local(name) is None and not (tmp_path / name).exists()
    assert not list((cache() / "models--acme--tone/blobs").iterdir())
    hub.heal()
    assert pulled(opened(), store) == FILES


def test_a_damaged_copy_that_cannot_be_replaced_is_bypassed(hub: HubServer, store: Store) -> None:
    hub.commit("acme/tone", FILES)
    place = [as_the_client(hub, name) for name in NAMES][1]
    place.resolve().write_bytes(WEIGHTS[::-1])
    folders = [p for p in (cache(), *cache().rglob("*")) if p.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        store.root.mkdir(parents=True)
        above = {store.root, *store.root.parents, *cache().parents}
        for folder in above - {*Path(tempfile.gettempdir()).parents, Path(tempfile.gettempdir())}:
            folder.chmod(0o777)
        os.seteuid(65534)
    try:
        assert pulled(opened(), store) == FILES
    finally:
        os.seteuid(user)
        for folder in folders:
            folder.chmod(0o755)
    assert place.resolve().read_bytes() == WEIGHTS[::-1]


def test_a_client_that_downloads_the_same_is_waited_for(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("acme/tone", {NAMES[1]: WEIGHTS[:100_000]})
    folder = opened()
    folder.files()
    hub.fail("steady", "/lfs/", times=1)
    other = threading.Thread(target=as_the_client, args=(hub, NAMES[1]))
    other.start()
    while not hub.count("/lfs/", "GET"):
        time.sleep(0.02)
    place = folder.download(NAMES[1], tmp_path / "w")
    other.join()
    assert place.read_bytes() == WEIGHTS[:100_000]
    assert hub.count("/lfs/", "GET") == 1


def test_a_client_that_holds_the_lock_and_does_nothing_is_not_waited_for(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import WeakFileLock

    monkeypatch.setenv("ADAPTERDOCK_STALL_SECONDS", "1")
    hub.commit("acme/tone", FILES)
    lock = cache() / ".locks/models--acme--tone" / f"{hashlib.sha256(WEIGHTS).hexdigest()}.lock"
    lock.parent.mkdir(parents=True)
    folder = opened()
    folder.files()
    with WeakFileLock(lock):
        assert folder.download(NAMES[1], tmp_path / "w").read_bytes() == WEIGHTS


def test_without_symlinks_a_file_is_in_the_snapshot_itself(
    hub: HubServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    commit = hub.commit("acme/tone", FILES)
    assert pulled(opened(), store) == FILES
    place = cache() / "models--acme--tone/snapshots" / commit / NAMES[1]
    assert not place.is_symlink()
    place.write_bytes(WEIGHTS[::-1])
    assert pulled(opened(), store) == FILES
    assert as_the_client(hub, NAMES[1]).read_bytes() == WEIGHTS


def test_endless_errors_and_redirections_are_not_read_to_their_end(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.commit("acme/tone", FILES)
    folder = opened()
    folder.files()
    hub.fail("endless-redirection", "/resolve/")
    began = time.monotonic()
    assert folder.download(NAMES[1], tmp_path / "w").read_bytes() == WEIGHTS
    assert time.monotonic() - began < 20
    assert hub.bytes_sent - len(WEIGHTS) < 32 << 20


# Xet, through the real hf_xet


def test_large_files_come_over_xet_where_the_hub_offers_it(
    hub: HubServer, store: Store, tmp_path: Path
) -> None:
    hub.xet = True
    commit = hub.commit("acme/tone", FILES)
    told: list[int] = []
    folder = opened()
    place = folder.download(NAMES[1], tmp_path / "w", told.append)
    assert place == cache() / "models--acme--tone/snapshots" / commit / NAMES[1]
    assert place.read_bytes() == WEIGHTS and sum(told) == len(WEIGHTS)
    assert hub.count("/lfs/") == 0 and hub.count("/xet/xorb/") >= 1
    assert pulled(opened(), store) == FILES


@pytest.mark.parametrize("fault", ["slow", "other", "forged"])
def test_where_xet_hangs_or_brings_other_bytes_the_file_comes_over_http(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_STALL_SECONDS", "2")
    hub.xet = True
    hub.commit("acme/tone", FILES)
    hub.fail(fault, "/xet/xorb/")
    told: list[int] = []
    began = time.monotonic()
    place = opened().download(NAMES[1], tmp_path / "w", told.append)
    assert place.read_bytes() == WEIGHTS
    assert sum(told) == len(WEIGHTS)
    assert hub.count("/lfs/", "GET") == 1
    assert time.monotonic() - began < 20


def test_a_damaged_copy_is_replaced_though_the_hub_offers_xet(hub: HubServer, store: Store) -> None:
    hub.xet = True
    hub.commit("acme/tone", FILES)
    as_the_client(hub, NAMES[1]).resolve().write_bytes(WEIGHTS[::-1])
    assert pulled(opened(), store) == FILES
    assert as_the_client(hub, NAMES[1]).read_bytes() == WEIGHTS


# Ctrl-C

PULL = """
import sys
from pathlib import Path
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.fetch import fetch
from adapterdock.registry.sources.open import open_source
from adapterdock.registry.store.store import Store

folder = open_source(Source.parse("hf://acme/tone"), directory=Path("."))
facts = list(folder.files().values())
print("listed", flush=True)
fetch(folder, facts, Store(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("xet", [False, True])
def test_ctrl_c_ends_a_stalled_download_at_once_and_leaves_nothing(
    hub: HubServer, store: Store, xet: bool
) -> None:
    hub.xet = xet
    hub.commit("acme/tone", FILES)
    hub.fail("slow" if xet else "stall", "/xet/xorb/" if xet else "/lfs/")
    process = subprocess.Popen(
        [sys.executable, "-c", PULL, str(store.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not hub.count("/xet/xorb/" if xet else "/lfs/", "GET"):
        time.sleep(0.05)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20  # the server is silent for a minute
    assert "KeyboardInterrupt" in errors
    assert unfinished() == []
