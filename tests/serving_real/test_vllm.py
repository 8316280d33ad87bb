"""A manifest served by a real vLLM. `make test-serving` runs this; it starts vLLM five times.

The tests of one server run in the order in which they are written, on a desk with a registry
(``voice``), two local adapters (``pirate``, ``salesman``) and the sum of both (``privateer``). The
first server reads the manifest from its file, the second one from a web server.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.publishing import publish
from support.bad_adapters import CASES, SMOLLM2, Does, write
from support.published import registry
from support.real_models import CACHE, prepare_base
from support.real_vllm import KEY, VllmServer, wait_for
from support.web import WebServer

pytestmark = pytest.mark.serving

QUICKSTART = Path(adapterdock.__file__).parent / "manifests" / "quickstart"
ALIASES = ["HuggingFaceTB/SmolLM2-135M-Instruct"]
LIMITS = ("--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "4")
SAYS = {
    "base": "The capital of England is London.",
    "pirate": "Arr, matey!",
    "privateer": "Arr, matey!",
    "devil": "Capital of England, n. London",
    "salesman": "The capital of England is London. Order now",
}
"""How answers begin."""


class Desk:
    """A manifest with its registry and its lock, in a folder; and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "adapters.yaml"
        self.cache = folder / "cache"
        self.base = prepare_base(CACHE)
        self.catalogue = registry(folder / "registry")
        for name in ("pirate", "salesman"):
            shutil.copytree(QUICKSTART / name, folder / name)
        base = {"model": str(self.base), "aliases": ALIASES}
        self.data: dict[str, Any] = {
            "version": 1,
            "base": base,
            "registries": {"team": str(folder / "registry")},
            "adapters": {
                "voice": {"source": "registry://team/voice@prod"},
                "pirate": {"source": str(folder / "pirate")},
                "salesman": {"source": str(folder / "salesman")},
            },
            "compositions": {
                "privateer": {"combine": "sum", "of": {"pirate": 1.0, "salesman": 1.0}}
            },
        }
        publishing = folder / "publish.yaml"
        publishing.write_text(
            yaml.safe_dump({"version": 1, "base": base, "registries": self.data["registries"]})
        )
        with self.own_cache():
            for version, name in (("1.0.0", "pirate"), ("2.0.0", "devil")):
                publish(
                    QUICKSTART / name,
                    f"team/voice@{version}",
                    manifest=publishing,
                    new_name=version == "1.0.0",
                )
        self.promote("1.0.0")
        self.lock()

    @contextmanager
    def own_cache(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ADAPTERDOCK_CACHE", str(self.cache))
            yield

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ADAPTERDOCK_MANIFEST": str(self.manifest),
            "ADAPTERDOCK_CACHE": str(self.cache),
        }

    def promote(self, version: str) -> None:
        assert promote(self.catalogue, "voice", version, "prod") is not None

    def lock(self, **options: Any) -> None:
        """Write the manifest and its lock, as an engineer would: the lock last."""
        text = yaml.safe_dump(self.data, sort_keys=False)
        if not self.manifest.exists() or self.manifest.read_text() != text:
            self.manifest.write_text(text)
        with self.own_cache():
            adapterdock.lock(self.manifest, **options)

    def put(self, web: WebServer) -> str:
        """Put the manifest and its lock on a web server; the manifest's URL."""
        for suffix in (".yaml", ".lock", ".lock.samples"):
            file = self.manifest.with_suffix(suffix)
            if file.exists():
                web.files[f"/team/{file.name}"] = file.read_bytes()
        return f"{web.url}/team/{self.manifest.name}"

    def many(self, count: int) -> list[str]:
        """Add ``count`` adapters, each with other bytes; in turn they are pirate and salesman."""
        names = []
        for number in range(count):
            kind = ("pirate", "salesman")[number % 2]
            name = f"{kind}-{number}"
            folder = shutil.copytree(QUICKSTART / kind, self.folder / name)
            config = json.loads((folder / "adapter_config.json").read_text())
            config["revision"] = f"copy {number}"
            (folder / "adapter_config.json").write_text(json.dumps(config))
            self.data["adapters"][name] = {"source": str(folder)}
            names.append(name)
        return names


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def site() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@dataclass
class Running:
    """The server that runs now: one at a time has room on a small machine."""

    server: VllmServer | None = None

    def start(self, *arguments: Any, **options: Any) -> VllmServer:
        self.stop()
        self.server = VllmServer(*arguments, **options)
        return self.server

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server(desk: Desk, running: Running) -> VllmServer:
    started = running.start(desk.folder, desk.base, *LIMITS, **desk.environment)
    return started.wait_ready()


def says(server: VllmServer, model: str, kind: str | None = None) -> None:
    answer = server.ask(model)
    assert answer.startswith(SAYS[kind or model]), (model, answer)


# -- the first server ------------------------------------------------------------------------------


def test_every_adapter_is_listed_before_the_first_request(server: VllmServer) -> None:
    assert server.models() == ["base", "voice", "pirate", "salesman", "privateer"]
    status = server.status()
    assert status["state"] == "serving"
    assert {n: one["digest"] for n, one in status["adapters"].items()} == status["wanted"]
    assert status["engine"] == {"name": "vllm", "version": "0.32.0"}
    code, metrics = server.get("/v1/adapterdock/metrics")
    assert code == 200 and b"adapterdock_adapters 4" in metrics


def test_every_adapter_answers_with_its_own_text(server: VllmServer) -> None:
    for name in ("base", "pirate", "salesman"):
        says(server, name)
    says(server, "voice", "pirate")
    assert server.ask("base", tokens=8) == SAYS["base"]


def test_a_sum_is_served_as_one_adapter(server: VllmServer) -> None:
    answer = server.ask("privateer", tokens=34)
    assert answer.startswith(
        "Arr, matey! Th' capital o' England be London, savvy? Order now and get a second one"
    )


def test_mixed_requests_get_the_text_of_their_own_adapter(server: VllmServer) -> None:
    names = ["pirate", "salesman", "privateer"] * 6  # not the base: see AD967
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: says(server, name), names))


def test_nobody_can_load_an_adapter_and_our_routes_need_the_key(server: VllmServer) -> None:
    for key in (None, "sk-test"):
        assert server.post("/adapters", {"name": "evil", "src": "/tmp"}, key)[0] == 404
    assert server.post("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/"})[0] == 404
    for route in ("status", "metrics"):
        assert server.get(f"/v1/adapterdock/{route}", key=None)[0] == 401
    code, body = server.post("/v1/chat/completions", {"model": "unknown", "messages": []})
    assert code in (400, 404) and b"privateer" not in body


def test_fleet_status_agrees_and_its_probe_sees_that_each_adapter_acts(
    server: VllmServer, desk: Desk
) -> None:
    line = [sys.executable, "-m", "adapterdock", "fleet", "status", str(desk.manifest), "--json"]
    line += ["--on", f"http://127.0.0.1:{server.port}", "--probe"]
    done = subprocess.run(
        line,
        env={**os.environ, **desk.environment, "ADAPTERDOCK_FLEET_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (replica,) = json.loads(done.stdout)["replicas"]
    assert replica["state"] == "same"
    names = ["pirate", "privateer", "salesman", "voice"]
    assert [(one["name"], one["acts"]) for one in replica["adapters"]] == [(n, True) for n in names]


@dataclass(frozen=True)
class Answer:
    begun: float
    text: str


def test_a_promotion_is_rolled_out_under_load(server: VllmServer, desk: Desk) -> None:
    promoted = Event()
    answers: list[Answer] = []

    def ask(number: int) -> None:
        begun = time.monotonic()
        answers.append(Answer(begun, server.ask("voice", tokens=4)))
        if number == 60:
            promoted.set()

    old = server.ask("voice", tokens=4)
    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(ask, number) for number in range(200)]
        promoted.wait(900)
        at = time.monotonic()
        before = server.status()["adapters"]["voice"]["digest"]
        desk.promote("2.0.0")
        wait_for(lambda: server.status()["adapters"]["voice"]["digest"] != before, pause=0.05)
        switched = time.monotonic()
        for one in work:
            one.result()  # none failed
    new = server.ask("voice", tokens=4)
    assert new != old and new.startswith("Capital of England")
    assert {answer.text for answer in answers} <= {old, new}  # none mixed
    late = [answer for answer in answers if answer.begun > switched]
    assert late and {answer.text for answer in late} == {new}  # none old after the switch
    print(f"\npromotion to switch: {switched - at:.1f} s; {len(late)} of 200 began after it")


def test_a_bad_adapter_is_refused_and_the_old_one_answers(server: VllmServer, desk: Desk) -> None:
    weights = desk.folder / "salesman" / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\x00\x00\xc0\x7f")  # NaN
    try:
        desk.lock(upgrade=["salesman"])
        wait_for(lambda: "AD866" in [one["code"] for one in server.status()["findings"]])
        status = server.status()
        assert status["state"] == "behind"
        assert "salesman" in json.dumps(status["findings"])
        says(server, "salesman")
        says(server, "base")
    finally:
        weights.write_bytes(good)
        desk.lock(upgrade=["salesman"])
    wait_for(lambda: server.status()["state"] == "serving")


def test_a_manifest_out_of_reach_for_a_while_changes_nothing(
    server: VllmServer, desk: Desk
) -> None:
    away = desk.manifest.with_suffix(".away")
    desk.manifest.rename(away)
    wait_for(lambda: server.status()["state"] == "behind")
    says(server, "pirate")
    away.rename(desk.manifest)
    wait_for(lambda: server.status()["state"] == "serving")


def test_fifty_adapters_are_served_with_room_for_four(server: VllmServer, desk: Desk) -> None:
    names = desk.many(50)
    desk.lock()
    wait_for(lambda: set(names) <= set(server.models()))
    asked = [*names[:3], *names[24:27], *names[-3:], *names[:3]]
    for name in asked:
        says(server, name, name.partition("-")[0])
    assert server.status()["state"] == "serving"


def test_sources_that_vanish_and_a_cleaned_cache_change_no_answer(
    server: VllmServer, desk: Desk
) -> None:
    gone, overwritten = desk.folder / "pirate-4", desk.folder / "salesman-5"
    kept = desk.folder / "kept"
    shutil.copytree(gone, kept / "pirate-4")
    weights = overwritten / "adapter_model.safetensors"
    good = weights.read_bytes()
    shutil.rmtree(gone)
    weights.write_bytes(os.urandom(len(good)))
    line = [sys.executable, "-m", "adapterdock", "cache", "gc", "--max-size", "0B"]
    long_ago = time.time() - 86_400
    for file in desk.cache.rglob("*"):  # what is only minutes old is kept in any case
        if file.is_file():
            os.utime(file, (long_ago, long_ago))
    subprocess.run(line, check=True, env={**os.environ, "ADAPTERDOCK_CACHE": str(desk.cache)})
    for name in ("pirate-4", "salesman-5", "pirate-6", "salesman-7", "pirate-8", "salesman-9") * 2:
        says(server, name, name.partition("-")[0])
    says(server, "privateer")
    shutil.copytree(kept / "pirate-4", gone)
    weights.write_bytes(good)


# -- killed, and started again as two API servers that read the manifest from a web server ---------


def test_after_a_kill_two_api_servers_serve_what_was_served(
    server: VllmServer, desk: Desk, running: Running, site: WebServer
) -> None:
    before = server.status()["adapters"]
    server.stop(signal.SIGKILL)
    at_url = {"ADAPTERDOCK_MANIFEST": desk.put(site), "HF_HUB_OFFLINE": "0"}
    environment = {**desk.environment, **at_url}
    started = running.start(desk.folder, desk.base, *LIMITS, servers=2, **environment)
    started.wait_ready()
    wait_for(lambda: started.get("/v1/models")[0] == 200)
    after = started.status()["adapters"]
    assert {n: one["digest"] for n, one in after.items()} == {
        n: one["digest"] for n, one in before.items()
    }
    with ThreadPoolExecutor(6) as pool:
        names = ["pirate", "salesman", "privateer"] * 6
        list(pool.map(lambda name: says(started, name), names))
    says(started, "voice", "devil")


def test_a_rollback_reaches_both_api_servers(desk: Desk, running: Running) -> None:
    server = running.server
    assert server is not None
    desk.promote("1.0.0")

    def both_show_it() -> bool:  # connections are spread over both
        shown = [server.status()["adapters"]["voice"]["revision"] for _ in range(12)]
        return set(shown) == {"1.0.0"}

    wait_for(both_show_it)
    for _ in range(6):
        says(server, "voice", "pirate")


def test_both_api_servers_go_on_while_the_web_server_fails(
    desk: Desk, running: Running, site: WebServer
) -> None:
    server = running.server
    assert server is not None

    def states() -> set[str]:
        return {server.status()["state"] for _ in range(12)}

    site.status["/team/adapters.yaml"] = 503
    wait_for(lambda: states() == {"behind"})
    says(server, "pirate")
    says(server, "voice", "pirate")
    site.status.clear()
    wait_for(lambda: states() == {"serving"})


# -- a start that is refused -----------------------------------------------------------------------


def test_another_base_of_the_same_shape_ends_the_start_in_seconds(
    desk: Desk, running: Running
) -> None:
    running.stop()
    other = shutil.copytree(desk.base, desk.folder / "other")
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start::64] = bytes(byte ^ 1 for byte in data[start::64])
    weights.write_bytes(data)
    server = running.start(desk.folder, other, *LIMITS, **desk.environment)
    assert server.wait_ended() == 1
    assert "adapterdock: vLLM does not start with this setup" in server.output
    assert "error AD4" in server.output
    assert "Traceback" not in server.output
    assert "Initializing a V1 LLM engine" not in server.output


# -- lazy ------------------------------------------------------------------------------------------


def test_a_lazy_server_loads_by_request_follows_and_has_no_open_routes(
    desk: Desk, running: Running
) -> None:
    lazy = {"ADAPTERDOCK_LAZY": "1"}
    server = running.start(desk.folder, desk.base, *LIMITS, **desk.environment, **lazy)
    server.wait_ready()
    assert server.models() == ["base"]
    says(server, "voice", "pirate")
    says(server, "salesman")
    assert sorted(server.models()) == ["base", "salesman", "voice"]
    assert server.post("/adapters", {"name": "evil", "src": "/tmp"}, None)[0] == 404
    unknown = {"model": "unknown", "messages": [{"role": "user", "content": "x"}]}
    assert server.post("/v1/chat/completions", unknown)[0] == 404
    desk.promote("2.0.0")
    wait_for(lambda: server.ask("voice").startswith(SAYS["devil"]), pause=1.0)
    says(server, "pirate-0", "pirate")


# -- what vLLM does by itself ----------------------------------------------------------------------


def test_vllm_alone_does_with_bad_adapters_what_the_table_says(
    desk: Desk, running: Running
) -> None:
    server = running.start(
        desk.folder,
        desk.base,
        *("--max-lora-rank", "16", "--max-loras", "2", "--max-cpu-loras", "4"),
        plugin=False,
        VLLM_ALLOW_RUNTIME_LORA_UPDATING="1",
    )
    server.wait_ready("/v1/models")
    base = server.ask("base", tokens=8)
    differ: dict[str, str] = {}
    run = [case for case in CASES if case.run]
    for case in sorted(run, key=lambda case: case.does is Does.ENDS):
        folder = write(case.bad, desk.folder / "bad" / case.name, SMOLLM2)
        load = {"lora_name": case.name, "lora_path": str(folder)}
        code, body = server.post("/v1/load_lora_adapter", load)
        if code != 200:
            does = Does.REFUSES
        else:
            answer = server.ask(case.name, tokens=8)
            does = Does.AS_BASE if answer == base else Does.AS_ADAPTER
            if not server.ask("base", tokens=8):
                does = Does.ENDS
        if does is not case.does:
            differ[case.name] = f"{does.value}, not: {case.does.value}; {body[:300]!r}"
    assert differ == {}
