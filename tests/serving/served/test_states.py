"""What a follower of a manifest serves, and says, in each state."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, FitError, LockError
from adapterdock.registry.store.maintenance import collect
from adapterdock.registry.store.store import Store
from adapterdock.serving.served.served import Refusal, Served, ServedAdapter
from support.builders import LLAMA_QV, lora_config, lora_tensors, write_adapter
from support.project import NAME, Project, codes, swap_bytes

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def desk(project: Project) -> Project:
    """Two adapters with values, locked."""
    project.base()
    project.adapter("tone", seed=1)
    project.adapter("legal", seed=2)
    project.write({"tone": "./tone", "legal": "./legal"})
    adapterdock.lock(project.manifest)
    return project


def digests(served: Served) -> dict[str, str]:
    return {name: one.digest for name, one in served.current().items()}


def is_served(found: ServedAdapter | Refusal) -> ServedAdapter:
    assert isinstance(found, ServedAdapter), found
    return found


def reasons(found: ServedAdapter | Refusal) -> list[str]:
    assert isinstance(found, Refusal)
    return codes(found.findings)


def retrain(desk: Project, name: str, seed: int) -> None:
    """Other weights, with a new lock."""
    shutil.rmtree(desk.folder / name)
    desk.adapter(name, seed=seed)
    adapterdock.lock(desk.manifest, upgrade=[name])


def with_nan(desk: Project, name: str) -> None:
    """The adapter's first value becomes NaN, with a new lock."""
    path = desk.folder / name / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"
    path.write_bytes(bytes(data))
    adapterdock.lock(desk.manifest, upgrade=[name])


def test_adapters_are_served_from_private_copies_under_the_locks_digest(desk: Project) -> None:
    with Served(desk.manifest) as served:
        served.start()
        tone = is_served(served.resolve("tone"))
    assert tone.digest == desk.lock.adapters["tone"].digest
    assert tone.digest.removeprefix("sha256:") in str(tone.path)
    assert (tone.rank, tone.revision) == (4, "")
    copy, source = tone.path / WEIGHTS, desk.folder / "tone" / WEIGHTS
    assert copy.read_bytes() == source.read_bytes()
    assert not copy.is_symlink() and copy.stat().st_ino != source.stat().st_ino
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    assert stat.S_IMODE(tone.path.stat().st_mode) == 0o555
    assert tone.size == sum(path.stat().st_size for path in tone.path.iterdir())


def test_a_new_lock_switches_only_what_changed(desk: Project) -> None:
    told: list[tuple[set[str], set[str]]] = []
    served = Served(desk.manifest, on_change=lambda new, all_: told.append(({*new}, {*all_})))
    served.start()
    before = served.current()
    retrain(desk, "tone", seed=3)
    looked = served.look()
    after = served.current()
    assert (looked.result, looked.changed, looked.removed) == ("switched", ("tone",), ())
    assert told == [({"tone", "legal"}, {"tone", "legal"}), ({"tone"}, {"tone", "legal"})]
    assert before["tone"].path != after["tone"].path
    assert before["legal"] is after["legal"]  # also its `since`
    assert (before["tone"].path / WEIGHTS).exists()  # an engine may still read it


def test_an_adapter_that_left_the_manifest_is_no_longer_served(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    desk.write({"tone": "./tone"})
    adapterdock.lock(desk.manifest)
    assert served.look().removed == ("legal",)
    assert reasons(served.resolve("legal")) == ["AD950"]
    is_served(served.resolve("tone"))


def test_nothing_happens_while_nothing_changes(desk: Project) -> None:
    told: list[object] = []
    served = Served(desk.manifest, on_change=lambda new, _: told.append(new))
    served.start()
    current = served.current()
    assert [served.look().result for _ in range(3)] == ["unchanged"] * 3
    assert served.current() is current and len(told) == 1


def test_before_the_first_look_nothing_is_served(desk: Project) -> None:
    served = Served(desk.manifest)
    refusal = served.resolve("tone")
    assert reasons(refusal) == ["AD950"]
    assert isinstance(refusal, Refusal) and "no look" in str(refusal.findings[0].found)
    assert served.status()["state"] == "starting" and served.status()["checked"] is None


def test_an_unknown_name_is_refused_without_naming_others(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    refusal = served.resolve("ton")
    assert isinstance(refusal, Refusal)
    assert "tone" not in str(refusal.findings[0]) and "legal" not in str(refusal.findings[0])


# -- what fails keeps the old ------------------------------------------------------------------


def test_start_refuses_a_missing_lock(desk: Project) -> None:
    desk.lock_file.unlink()
    served = Served(desk.manifest)
    with pytest.raises(LockError) as caught:
        served.start()
    assert codes(caught.value.findings) == ["AD504"]
    assert served.current() == {} and served.status()["state"] == "starting"


def test_start_refuses_a_stale_lock(desk: Project) -> None:
    desk.write({"tone": "./tone"})
    with pytest.raises(LockError) as caught:
        Served(desk.manifest).start()
    assert codes(caught.value.findings) == ["AD505"]


def broken_manifest(desk: Project) -> None:
    desk.manifest.write_text("version: 1\nadapters: [")


def stale(desk: Project) -> None:
    desk.write({"tone": "./tone"})


def no_lock(desk: Project) -> None:
    desk.lock_file.unlink()


def no_manifest(desk: Project) -> None:
    desk.manifest.unlink()


def not_finite(desk: Project) -> None:
    with_nan(desk, "tone")


def all_zero(desk: Project) -> None:
    shutil.rmtree(desk.folder / "tone")
    write_adapter(
        desk.folder / "tone",
        lora_config(base_model_name_or_path=NAME),
        lora_tensors(LLAMA_QV),
        None,
    )
    adapterdock.lock(desk.manifest, upgrade=["tone"])


def changed_under_the_lock(desk: Project) -> None:
    retrain(desk, "tone", seed=3)
    swap_bytes(desk.folder / "tone" / WEIGHTS)


def forbidden(desk: Project) -> None:
    desk.write({"tone": "./tone", "legal": "./legal"}, policy={"allow_sources": ["s3://ours/*"]})


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (broken_manifest, "AD1"),
        (stale, "AD505"),
        (no_lock, "AD504"),
        (no_manifest, "AD1"),
        (not_finite, "AD866"),
        (all_zero, "AD866"),
        (changed_under_the_lock, "AD6"),
        (forbidden, "AD85"),
    ],
)
def test_what_fails_keeps_the_old_and_says_why(desk: Project, harm: Any, code: str) -> None:
    served = Served(desk.manifest)
    served.start()
    before = served.current()
    harm(desk)
    looked = served.look()
    assert looked.result == "refused"
    assert looked.findings and codes(looked.findings)[0].startswith(code)
    assert served.current() is before
    status = served.status()
    assert status["state"] == "behind"
    assert codes(looked.findings) == [one["code"] for one in status["findings"]]
    assert is_served(served.resolve("tone")).path.joinpath(WEIGHTS).exists()


def test_it_serves_the_new_once_the_fault_is_gone(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    with_nan(desk, "tone")
    assert served.look().result == "refused"
    wanted = served.status()["wanted"]["tone"]
    assert wanted == desk.lock.adapters["tone"].digest != digests(served)["tone"]
    retrain(desk, "tone", seed=5)
    assert served.look().result == "switched"
    assert served.status()["state"] == "serving" and served.status()["findings"] == []
    assert digests(served)["tone"] == desk.lock.adapters["tone"].digest


def test_values_that_are_not_finite_are_refused_at_the_start(desk: Project) -> None:
    with_nan(desk, "tone")
    with pytest.raises(FitError) as caught:
        Served(desk.manifest).start()
    assert codes(caught.value.findings) == ["AD866"]


def test_an_engine_that_refuses_keeps_the_old_and_is_asked_again(desk: Project) -> None:
    full = False

    def take(new: Mapping[str, ServedAdapter], _: object) -> None:
        if full:
            raise RuntimeError("no room for rank 4")

    served = Served(desk.manifest, on_change=take)
    served.start()
    before = served.current()
    retrain(desk, "tone", seed=3)
    full = True
    looked = served.look()
    assert (
        codes(looked.findings) == ["AD954"] and "no room for rank 4" in looked.findings[0].message
    )
    assert served.current() is before and served.status()["state"] == "behind"
    full = False
    assert served.look().changed == ("tone",)


def test_an_error_of_ours_from_the_engine_is_said_as_it_is(desk: Project) -> None:
    def take(*_: object) -> None:
        raise LockError(codes_of_lock())

    with pytest.raises(LockError):
        Served(desk.manifest, on_change=take).start()


def codes_of_lock() -> Any:
    from adapterdock.manifests.findings.lock import LOCK_MISSING

    return LOCK_MISSING.finding("The lock is missing")


def test_ctrl_c_while_the_engine_loads_leaves_the_old(desk: Project) -> None:
    stop = False

    def take(*_: object) -> None:
        if stop:
            raise KeyboardInterrupt

    served = Served(desk.manifest, on_change=take)
    served.start()
    before = served.current()
    retrain(desk, "tone", seed=3)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        served.look()
    assert served.current() is before
    stop = False
    assert served.look().result == "switched"  # the next look is not locked out


def test_an_unexpected_error_is_a_finding(desk: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(desk.manifest)
    served.start()
    before = served.current()
    retrain(desk, "tone", seed=3)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("adapterdock.serving.served.prepare.pull_pinned", broken)
    looked = served.look()
    assert codes(looked.findings) == ["AD957"] and "a bug" in looked.findings[0].message
    assert served.current() is before


# -- what happens to sources and to the cache --------------------------------------------------


def test_a_source_may_be_overwritten_and_deleted_while_it_is_served(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    tone, legal = (is_served(served.resolve(name)) for name in ("tone", "legal"))
    before = (tone.path / WEIGHTS).read_bytes()
    with (desk.folder / "tone" / WEIGHTS).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\xc0\x7f")
    shutil.rmtree(desk.folder / "legal")
    assert served.look().result == "unchanged"
    assert (tone.path / WEIGHTS).read_bytes() == before
    assert (legal.path / WEIGHTS).exists()


def test_the_cache_may_be_emptied_while_it_is_served(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    collect(Store.default(), 0, grace=0.0)
    for one in served.current().values():
        assert {path.name for path in one.path.iterdir()} == {WEIGHTS, "adapter_config.json"}
    assert served.look().result == "unchanged"


def test_a_copy_that_was_changed_is_made_again(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    tone = is_served(served.resolve("tone"))
    file = tone.path / WEIGHTS
    right = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(right[:-1] + b"\x01")
    assert served.look().result == "unchanged"
    assert (tone.path / WEIGHTS).read_bytes() == right


def test_a_restart_finds_the_copies_again(desk: Project) -> None:
    first = Served(desk.manifest)
    first.start()
    file = is_served(first.resolve("tone")).path / WEIGHTS
    inode = file.stat().st_ino
    first.close()
    second = Served(desk.manifest)
    second.start()
    assert (is_served(second.resolve("tone")).path / WEIGHTS).stat().st_ino == inode


# -- rules and compositions --------------------------------------------------------------------


def test_an_adapter_that_needs_another_is_not_served_alone(desk: Project) -> None:
    desk.write(
        {"tone": "./tone", "legal": "./legal"},
        rules={"requires": {"legal": ["tone"]}},
        compositions={"both": {"of": {"tone": 1.0, "legal": 0.5}}},
    )
    adapterdock.lock(desk.manifest)
    served = Served(desk.manifest)
    served.start()
    assert sorted(served.current()) == ["both", "tone"]
    assert reasons(served.resolve("legal")) == ["AD805"]
    assert served.status()["state"] == "serving"


def test_other_ways_of_combining_are_refused_and_export_is_named(desk: Project) -> None:
    desk.write(
        {"tone": "./tone", "legal": "./legal"},
        compositions={"flat": {"combine": "linear", "of": {"tone": 1.0, "legal": 1.0}}},
    )
    adapterdock.lock(desk.manifest)
    served = Served(desk.manifest)
    served.start()
    refusal = served.resolve("flat")
    assert reasons(refusal) == ["AD953"] and isinstance(refusal, Refusal)
    assert "adapterdock export" in str(refusal.findings[0].hint)
    assert sorted(served.current()) == ["legal", "tone"]
    assert [one["code"] for one in served.status()["findings"]] == ["AD953"]


def test_a_new_adapter_has_nothing_to_serve(desk: Project) -> None:
    new = {"config": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}, "trainable": True}
    desk.write({"tone": "./tone", "fresh": new})
    adapterdock.lock(desk.manifest)
    served = Served(desk.manifest)
    served.start()
    assert sorted(served.current()) == ["tone"]
    assert reasons(served.resolve("fresh")) == ["AD955"]


# -- what is said ------------------------------------------------------------------------------


def test_the_status_says_what_is_served_and_what_is_wanted(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    status = served.status()
    assert json.loads(json.dumps(status)) == status
    assert status["schema"] == "adapterdock.status/1" and status["state"] == "serving"
    assert status["manifest"]["location"] == str(desk.manifest)
    assert status["base"]["model"] == "./base"
    locked = {name: one.digest for name, one in desk.lock.adapters.items()}
    assert status["wanted"] == locked
    assert {name: one["digest"] for name, one in status["adapters"].items()} == locked
    assert {*status["adapters"]["tone"]} == {"digest", "revision", "size", "since"}
    assert status["checked"] >= status["adapters"]["tone"]["since"]


def test_the_metrics_count_looks_and_switches(desk: Project) -> None:
    served = Served(desk.manifest)
    served.start()
    served.look()
    desk.lock_file.unlink()
    served.look()
    lines = served.metrics().splitlines()
    tone = served.current()["tone"].digest
    for line in (
        "adapterdock_adapters 2",
        'adapterdock_looks_total{result="refused"} 1',
        'adapterdock_looks_total{result="switched"} 1',
        'adapterdock_looks_total{result="unchanged"} 1',
        "adapterdock_switches_total 1",
        "adapterdock_behind 1",
        f'adapterdock_adapter_info{{adapter="tone",digest="{tone}",revision=""}} 1',
    ):
        assert line in lines
    stamp = next(one for one in lines if one.startswith("adapterdock_last_look_timestamp"))
    assert float(stamp.split()[1]) > 1e9


def test_a_look_is_logged_with_fields(desk: Project, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(desk.manifest)
    with caplog.at_level("INFO", "adapterdock"):
        served.start()
        served.look()
        desk.lock_file.unlink()
        served.look()
        served.look()  # the same again is not said again
    told = [vars(record) for record in caplog.records if "event" in vars(record)]
    assert [(one["result"], one["state"], one["codes"]) for one in told] == [
        ("switched", "serving", []),
        ("refused", "behind", ["AD504"]),
    ]
    assert told[0]["changed"] == ["legal", "tone"]


@pytest.mark.parametrize("period", [0, -1, float("inf"), float("nan")])
def test_an_invalid_period_is_refused(desk: Project, period: float) -> None:
    with pytest.raises(AdapterdockError) as caught:
        Served(desk.manifest, period=period)
    assert caught.value.code == "AD940"
