"""Folders on plain web servers."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.web import WebServer

CONFIG = b'{"peft_type": "LORA"}'
WEIGHTS = bytes(range(256)) * 8000


def opened(web: WebServer, text: str = "/tone", **options: object) -> Folder:
    return open_source(Source.parse(web.url + text), directory=Path.cwd(), **options)  # type: ignore[arg-type]


def code_of(folder: Folder, path: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        folder.read(path) if path else folder.files()
    return caught.value.code


@pytest.fixture
def tone(web: WebServer) -> WebServer:
    web.files["/tone/adapter_config.json"] = CONFIG
    web.files["/tone/adapter_model.safetensors"] = WEIGHTS
    return web


def test_only_existing_names_become_files(tone: WebServer) -> None:
    files = opened(tone).files()
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert (files["adapter_config.json"].version or "").startswith('etag:"')
    assert opened(tone).bytes_read == 0


def test_the_shards_of_a_base_are_found_through_its_index(web: WebServer) -> None:
    shards = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": "../../evil"}}
    web.files["/base/model.safetensors.index.json"] = json.dumps(index).encode()
    web.files["/base/config.json"] = b"{}"
    for shard in shards:
        web.files[f"/base/{shard}"] = b"12345"
    files = opened(web, "/base").files()
    assert set(files) == {"config.json", "model.safetensors.index.json", *shards}
    assert not any("evil" in path for _, path, _ in web.requests)


@pytest.mark.parametrize("page", [("text/html", b"<html>Welcome"), ("text/plain", b"see /docs")])
def test_a_server_that_answers_everything_has_no_false_files(
    tone: WebServer, page: tuple[str, bytes]
) -> None:
    tone.catch_all = page
    assert set(opened(tone).files()) == {"adapter_config.json", "adapter_model.safetensors"}
    assert code_of(opened(tone, "/elsewhere")) == "AD201"


def test_a_server_without_head_gets_a_range_request_of_one_byte(tone: WebServer) -> None:
    tone.head = False
    folder = opened(tone)
    assert folder.files()["adapter_model.safetensors"].size == len(WEIGHTS)
    assert folder.read("adapter_model.safetensors", 5, 5) == WEIGHTS[5:10]


def test_a_file_of_unknown_size_is_refused(tone: WebServer) -> None:
    tone.lengths, tone.ranges = False, False
    assert code_of(opened(tone)) == "AD227"


def test_the_date_pins_where_there_is_no_etag(tone: WebServer) -> None:
    tone.etags, tone.dates = False, True
    folder = opened(tone)
    assert (folder.files()["adapter_config.json"].version or "").startswith("modified:Sun, 22")
    assert folder.read("adapter_config.json") == CONFIG


def test_without_etag_and_date_a_file_has_no_version(tone: WebServer) -> None:
    tone.etags = False
    folder = opened(tone)
    assert folder.files()["adapter_config.json"].version is None
    assert folder.read("adapter_config.json") == CONFIG


def test_a_file_that_changes_after_it_was_listed_is_an_error(tone: WebServer) -> None:
    folder = opened(tone)
    pins = folder.files()
    tone.files["/tone/adapter_config.json"] = CONFIG[::-1]
    assert code_of(folder, "adapter_config.json") == "AD228"
    assert code_of(opened(tone, files=pins)) == "AD228"
    del tone.files["/tone/adapter_config.json"]
    assert code_of(opened(tone, files=pins)) == "AD229"


def test_a_read_stops_when_it_has_its_bytes(tone: WebServer) -> None:
    tone.ranges = False
    folder = opened(tone)
    assert folder.read("adapter_model.safetensors", 8, 100) == WEIGHTS[8:108]
    assert folder.bytes_read <= 108 + 64 * 1024
    assert code_of_range(folder, 2_000_000) == "AD227"


def code_of_range(folder: Folder, start: int) -> str:
    with pytest.raises(SourceError) as caught:
        folder.read("adapter_model.safetensors", start, 1)
    return caught.value.code


def test_a_broken_body_is_resumed_and_a_body_that_always_breaks_is_an_error(
    tone: WebServer, tmp_path: Path
) -> None:
    folder = opened(tone)
    folder.files()
    tone.truncate = 2
    assert folder.read("adapter_model.safetensors") == WEIGHTS
    tone.truncate = 1000
    with pytest.raises(SourceError) as caught:
        folder.download("adapter_model.safetensors", tmp_path / "into")
    assert caught.value.code == "AD226"
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("status", "code"), [(401, "AD221"), (403, "AD220"), (429, "AD222"), (500, "AD223")]
)
def test_a_status_has_its_code(tone: WebServer, status: int, code: str) -> None:
    folder = opened(tone)
    folder.files()
    for path in list(tone.files):
        tone.status[path] = status
    assert code_of(folder, "adapter_config.json") == code
    assert code_of(opened(tone)) == code


def test_options_carry_the_headers_and_no_error_shows_them(tone: WebServer) -> None:
    tone.auth = "Bearer abcdef-secret"
    options = {"headers": {"Authorization": tone.auth}}
    assert opened(tone, storage_options=options).read("adapter_config.json") == CONFIG
    with pytest.raises(SourceError) as caught:
        opened(tone, storage_options={"headers": {"Authorization": "Bearer wrong-secret"}}).files()
    assert caught.value.code == "AD221"
    assert "wrong-secret" not in str(caught.value)


def test_a_signed_url_keeps_its_query_and_no_error_shows_it(tone: WebServer) -> None:
    # The language refuses such a source; a caller who makes one is still not betrayed.
    source = Source("http", f"{tone.url.partition('://')[2]}/tone?sig=hush")
    folder = open_source(source, directory=Path.cwd())
    assert folder.read("adapter_config.json") == CONFIG
    assert all("sig=hush" in path for _, path, _ in tone.requests)
    with pytest.raises(SourceError) as caught:
        folder.read("nothing")
    assert "hush" not in str(caught.value)


def test_an_option_that_aiohttp_does_not_know_is_refused(tone: WebServer) -> None:
    assert code_of(opened(tone, storage_options={"sesion": 1})) == "AD232"


def test_a_closed_port_is_reported_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        source = Source.parse(f"http://127.0.0.1:{probe.getsockname()[1]}/x")
        began = time.monotonic()
        assert code_of(open_source(source, directory=Path.cwd())) == "AD224"
        assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(web: WebServer) -> None:
    web.silent = True
    began = time.monotonic()
    assert code_of(opened(web)) == "AD225"
    assert time.monotonic() - began < 20
