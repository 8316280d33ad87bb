"""A manifest served by a real Ray Serve. `make test-serving` runs this; it starts Ray once.

The tests run in the order in which they are written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from support.real_models import CACHE, prepare_base
from support.real_ray import RayServer
from support.real_vllm import wait_for

pytestmark = pytest.mark.serving

QUICKSTART = Path(adapterdock.__file__).parent / "manifests" / "quickstart"
KEY, MOBILE = "ops-" + "k" * 20, "mobile-" + "k" * 20
QUESTION = [{"role": "user", "content": "What is the capital of England?"}]
SAYS = {
    "__base__": "The capital of England is London.",
    "pirate": "Arr, matey!",
    "privateer": "Arr, matey!",
    "salesman": "The capital of England is London. Order now",
}
"""How answers begin."""


def write(folder: Path, adapters: dict[str, str]) -> Path:
    """The locked manifest of these adapters: by name, a folder of the quickstart's."""
    base = {
        "model": str(prepare_base(CACHE)),
        "aliases": ["HuggingFaceTB/SmolLM2-135M-Instruct"],
        "dtype": "float32",
    }
    data: dict[str, Any] = {
        "version": 1,
        "base": base,
        "adapters": {name: {"source": f"./{source}"} for name, source in adapters.items()},
        "policy": {"allow_keys": {"ops": ["*"], "mobile": ["pirate"]}},
    }
    if "salesman" in adapters:
        of = {"pirate": 1.0, "salesman": 1.0}
        data["compositions"] = {"privateer": {"combine": "sum", "of": of}}
    path = folder / "adapters.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    adapterdock.lock(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    for name in ("pirate", "salesman", "devil"):
        shutil.copytree(QUICKSTART / name, folder / name)
    write(folder, {"pirate": "pirate", "salesman": "salesman"})
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RayServer]:
    server = RayServer(
        folder,
        *("manifest=adapters.yaml", "wait=0.3", "follow=1", "frozen=true"),
        ADAPTERDOCK_API_KEYS=f"ops={KEY},mobile={MOBILE}",
    )
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def ask(server: RayServer, model: str, key: str = KEY) -> tuple[int, Any]:
    return server.send(
        "/v1/chat/completions",
        {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 14},
        key,
    )


def text(answer: tuple[int, Any]) -> str:
    assert answer[0] == 200, answer
    return answer[1]["choices"][0]["message"]["content"]


def metric(server: RayServer, name: str) -> float:
    lines = server.send("/v1/adapterdock/metrics", key=KEY)[1].splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_every_adapter_answers_by_its_name(server: RayServer) -> None:
    for name, begins in SAYS.items():
        assert text(ask(server, name)).startswith(begins), name


def test_requests_of_several_adapters_run_in_one_batch_and_a_bad_name_fails_alone(
    server: RayServer,
) -> None:
    names = [*SAYS, "nobody", *SAYS]
    before = metric(server, "adapterdock_batch_rows_count")
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: ask(server, name), names))
    for name, answer in zip(names, answers, strict=True):
        if name == "nobody":
            assert answer[0] == 404
            assert "salesman" not in str(answer[1])
        else:
            assert text(answer).startswith(SAYS[name]), name
    assert metric(server, "adapterdock_batch_rows_count") - before <= 3


def test_a_key_is_needed_and_its_names_are_those_of_the_policy(server: RayServer) -> None:
    assert server.send("/v1/models")[0] == 401
    assert [one["id"] for one in server.send("/v1/models", key=MOBILE)[1]["data"]] == ["pirate"]
    assert ask(server, "salesman", MOBILE)[0] == 404


def test_a_new_lock_is_served_under_load_without_a_restart(server: RayServer, folder: Path) -> None:
    write(folder, {"pirate": "devil"})
    said: list[str] = []

    def switched() -> bool:
        said.append(text(ask(server, "pirate")))
        return not said[-1].startswith(SAYS["pirate"])

    wait_for(switched, 60)
    assert all(one.startswith(SAYS["pirate"]) for one in said[:-1])
    assert said[-1].startswith("Capital of England, n. London")
    assert ask(server, "salesman")[0] == 404
    status = server.send("/v1/adapterdock/status", key=KEY)[1]
    assert status["state"] == "serving"
    served = {name: one["digest"] for name, one in status["adapters"].items()}
    assert served == status["wanted"]


def test_a_broken_manifest_keeps_what_is_served(server: RayServer, folder: Path) -> None:
    (folder / "adapters.yaml").write_text("version: 1\nadapters: {pirate: 5}\n")
    wait_for(lambda: server.send("/v1/adapterdock/status", key=KEY)[1]["state"] == "behind", 60)
    assert ask(server, "pirate")[0] == 200


def test_ctrl_c_stops_it(server: RayServer) -> None:
    assert server.stop() == 0
    assert server.send("/health")[0] == 0
