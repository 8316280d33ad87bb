"""The thread that follows, and many that resolve while it switches."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import adapterdock
import pytest
from adapterdock.serving.served.location import Location
from adapterdock.serving.served.served import Served, ServedAdapter
from support.project import Project

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def desk(project: Project) -> Project:
    project.base()
    project.adapter("tone", seed=1)
    project.write({"tone": "./tone"})
    adapterdock.lock(project.manifest)
    return project


def retrain(desk: Project, seed: int) -> str:
    desk.adapter("tone", seed=seed)
    adapterdock.lock(desk.manifest, upgrade=["tone"])
    digest = desk.lock.adapters["tone"].digest
    assert digest is not None
    return digest


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def together(threads: int, *acts: Callable[[], object]) -> None:
    """Call each function in so many threads at once."""
    barrier = threading.Barrier(threads * len(acts))

    def run(act: Callable[[], object]) -> None:
        barrier.wait(30)
        act()

    running = [threading.Thread(target=run, args=(act,)) for act in acts for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)


def denied(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def digest_of(served: Served) -> str | None:
    found = served.resolve("tone")
    return found.digest if isinstance(found, ServedAdapter) else None


def test_a_changed_file_is_noticed_long_before_the_period_ends(
    desk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.serving.served.follower.POLL", 0.05)
    with Served(desk.manifest, period=3600) as served:
        served.start()
        served.follow()
        wanted = retrain(desk, seed=2)
        until(lambda: digest_of(served) == wanted)


def test_it_looks_each_period_although_no_file_changed(desk: Project) -> None:
    with Served(desk.manifest, period=0.05) as served:
        served.start()
        served.follow()
        until(lambda: 'looks_total{result="unchanged"} 3' in served.metrics())


def test_a_fault_does_not_end_following(desk: Project) -> None:
    with Served(desk.manifest, period=0.05) as served:
        served.start()
        served.follow()
        text = desk.lock_file.read_text()
        desk.lock_file.unlink()
        until(lambda: served.status()["state"] == "behind")
        desk.lock_file.write_text(text)
        until(lambda: served.status()["state"] == "serving")


def test_files_that_cannot_be_looked_at_do_not_end_following(
    desk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(desk.manifest, period=0.1)
    served.start()
    monkeypatch.setattr(Location, "marks", denied)
    served.follow()
    digest = retrain(desk, 7)
    until(lambda: digest_of(served) == digest)
    served.close()


def test_close_ends_following_and_what_is_served_stays(desk: Project) -> None:
    served = Served(desk.manifest, period=0.05)
    served.start()
    served.follow()
    served.close()
    name = f"adapterdock {desk.manifest}"
    before = len([one for one in threading.enumerate() if one.name == name])
    assert before == 0
    assert digest_of(served) == desk.lock.adapters["tone"].digest


def test_many_threads_follow_and_close_and_one_thread_follows_at_most(desk: Project) -> None:
    name = f"adapterdock {desk.manifest}"

    def followers() -> int:
        return [one.name for one in threading.enumerate()].count(name)

    served = Served(desk.manifest, period=0.01)
    served.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            together(8, served.follow)
            assert followers() == 1
            together(4, served.follow, served.look, served.close)
            served.close()
            assert followers() == 0
    finally:
        sys.setswitchinterval(interval)
    served.follow()  # as before
    assert followers() == 1
    served.close()
    assert digest_of(served) == desk.lock.adapters["tone"].digest


def test_an_adapter_that_the_engine_takes_may_close_what_follows(desk: Project) -> None:
    served = Served(desk.manifest, period=0.05, on_change=lambda *_: served.close())
    served.follow()
    name = f"adapterdock {desk.manifest}"
    until(lambda: digest_of(served) is not None)
    until(lambda: name not in [one.name for one in threading.enumerate()])


def test_a_follower_that_nobody_needs_any_more_ends(desk: Project) -> None:
    served = Served(desk.manifest, period=0.05)
    served.start()
    served.follow()
    assert f"adapterdock {desk.manifest}" in [one.name for one in threading.enumerate()]
    del served
    name = f"adapterdock {desk.manifest}"

    def ended() -> bool:
        gc.collect()  # each time: while the follower looks, it needs what it follows
        return name not in [one.name for one in threading.enumerate()]

    until(ended)


def test_many_threads_resolve_while_it_switches(desk: Project) -> None:
    """Each sees one version or the other, always with its own files."""
    served = Served(desk.manifest)
    served.start()
    stop, wrong = threading.Event(), list[str]()
    seen: set[str] = set()

    def ask() -> None:
        while not stop.is_set():
            found, everything = served.resolve("tone"), served.current()
            if not isinstance(found, ServedAdapter) or list(everything) != ["tone"]:
                wrong.append(str(found))
                continue
            seen.add(found.digest)
            if found.digest.removeprefix("sha256:") != found.path.name:
                wrong.append(f"{found.digest} at {found.path}")
            if not (found.path / WEIGHTS).is_file():
                wrong.append(f"no file in {found.path}")
            assert served.status() and served.metrics()
            time.sleep(0.002)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wanted = {digest_of(served)}
    for seed in range(2, 6):
        wanted.add(retrain(desk, seed))
        assert served.look().result == "switched"
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and seen <= wanted


def test_looks_from_many_threads_are_made_one_at_a_time(desk: Project) -> None:
    running, most = [0], [0]

    def take(*_: object) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        running[0] -= 1

    served = Served(desk.manifest, on_change=take)
    threads = [threading.Thread(target=served.look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert 'looks_total{result="switched"} 1' in served.metrics()
    assert 'looks_total{result="unchanged"} 5' in served.metrics()


def test_resolving_does_not_wait_for_a_look(desk: Project) -> None:
    inside, go = threading.Event(), threading.Event()

    def take(*_: object) -> None:
        if inside.is_set():
            return
        inside.set()
        go.wait(30)

    served = Served(desk.manifest, on_change=take)
    thread = threading.Thread(target=served.look)
    thread.start()
    assert inside.wait(60)
    began = time.monotonic()
    assert digest_of(served) is None
    assert served.status()["state"] == "starting"
    assert time.monotonic() - began < 5
    go.set()
    thread.join()
    assert digest_of(served) is not None


def test_ctrl_c_ends_a_process_that_follows(desk: Project, tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from adapterdock.serving.served.served import Served\n"
        f"with Served({str(desk.manifest)!r}, period=0.05) as served:\n"
        "    served.start(); served.follow()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in said and process.returncode != 0
