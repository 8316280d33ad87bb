"""Seconds from a promotion in a registry to the served app's first answer of the new version.

    .venv/bin/python benchmarks/serving_promotion.py

The app runs in this process, on SmolLM2 in float32, and looks at the registry once a second. A
client asks it again and again; nobody tells the app of the promotion. Prints a table of medians.

PEFT's row is what it takes to exchange the same adapters on an idle model, by hand: it has no
registry, checks nothing, and no answer may run meanwhile.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

from on_smollm import ask, smollm, write_manifest  # isort: skip - first: it sets the environment
import adapterdock
import torch
from adapterdock.serving.app.build_app import build_app
from adapterdock.serving.app.following import Follower
from adapterdock.serving.app.settings import Settings
from fastapi.testclient import TestClient
from peft import PeftModel
from promoted import BASE_NAME, NAME, SOURCE, VERSIONS, Promoted
from timing import Times, timed
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

PERIOD = 1.0
TOKENS = 4
ROUNDS = 6
PATIENCE = 120.0
PROMPT = "What is the capital of England?"
STEPS = ("promote", "until the app looks", "load and switch", "until the answer")


class Asking:
    """A client that asks for the adapter until it is closed. ``text`` is its latest answer."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._ended = threading.Event()
        self.text = self._ask()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _ask(self) -> str:
        said = [{"role": "user", "content": PROMPT}]
        answer = ask(self._client, "/v1/chat/completions", TOKENS, model=NAME, messages=said)
        return answer["message"]["content"]

    def _run(self) -> None:
        while not self._ended.is_set():
            self.text = self._ask()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


class Looks:
    """The looks of a follower that changed the model: when they began and ended."""

    def __init__(self, follower: Follower) -> None:
        self.switched: list[tuple[float, float]] = []
        self._look = follower.look
        follower.look = self._timed  # type: ignore[method-assign]

    def _timed(self) -> str:
        start = time.perf_counter()
        result = self._look()
        if result == "switched":
            self.switched.append((start, time.perf_counter()))
        return result


def locked(folder: Path, promoted: Promoted) -> Path:
    path = write_manifest(
        folder,
        BASE_NAME,
        {NAME: SOURCE},
        base={"dtype": "float32"},
        registries=promoted.registries,
    )
    adapterdock.lock(path)
    return path


def promotion(times: Times, promoted: Promoted, asking: Asking, looks: Looks) -> None:
    """Promote the other version, and wait for its first answer."""
    old, count = asking.text, len(looks.switched)
    start = time.perf_counter()
    promoted.promote()
    done = time.perf_counter()
    while asking.text == old or len(looks.switched) == count:
        assert time.perf_counter() - start < PATIENCE, "the new version does not answer"
        time.sleep(0.002)
    answered = time.perf_counter()
    looked, switched = looks.switched[count]
    moments = (start, done, looked, switched, answered)
    for step, started, ended in zip(STEPS, moments, moments[1:], strict=False):
        times[step].append(ended - started)
    times["all"].append(answered - start)


def peft_rounds(times: Times, base: Path) -> None:
    """Exchange the same adapters with PEFT."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    first, second = VERSIONS.values()
    peft = PeftModel.from_pretrained(model, first, adapter_name=first.name)

    def exchange(old: Path, new: Path) -> None:
        peft.load_adapter(new, new.name)
        peft.set_adapter(new.name)
        peft.delete_adapter(old.name)

    for _ in range(ROUNDS):
        timed(times, "PEFT", partial(exchange, first, second))
        first, second = second, first


def main() -> None:
    disable_progress_bar()
    times: Times = defaultdict(list)
    base = smollm()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["ADAPTERDOCK_CACHE"] = str(folder / "cache")
        promoted = Promoted(folder, base)
        app = build_app(Settings(locked(folder, promoted), period=PERIOD, threads=1))
        looks = Looks(app.state.service.follower)
        with TestClient(app) as client, closing(Asking(client)) as asking:
            for _ in range(ROUNDS):
                promotion(times, promoted, asking, looks)
    peft_rounds(times, base)
    print(f"{'promotion to first answer':28}{median(times['all']):8.3f} s")
    for step in STEPS:
        print(f"  {step:26}{median(times[step]):8.3f} s")
    print(f"{'PEFT: load, set, delete':28}{median(times['PEFT']):8.3f} s")


if __name__ == "__main__":
    main()
