"""A promotion in a registry is served without a new lock, and only that."""

from __future__ import annotations

import shutil

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.publishing import publish
from adapterdock.serving.served.served import Served, ServedAdapter
from support.builders import HIDDEN, lora_config, lora_tensors, write_adapter
from support.project import NAME as BASE
from support.project import Project, codes
from support.team import NAME, Team, in_production


@pytest.fixture
def team(project: Project) -> Team:
    """Version 1.0.0 is in production, and locked."""
    return in_production(project)


def started(team: Team, **options: object) -> Served:
    served = Served(team.project.manifest, **options)  # type: ignore[arg-type]
    served.start()
    return served


def revision(served: Served) -> str:
    found = served.resolve("tone")
    assert isinstance(found, ServedAdapter), found
    return found.revision


def test_a_promotion_is_served_without_a_new_lock(team: Team) -> None:
    served = started(team)
    assert revision(served) == "1.0.0"
    lock = team.project.lock_file.read_bytes()
    team.promote("2.0.0")
    assert served.look().changed == ("tone",)
    assert revision(served) == "2.0.0"
    assert served.status()["state"] == "serving"
    status = served.status()
    assert status["wanted"]["tone"] == served.current()["tone"].digest
    assert status["followed"] == {"tone": {"locked": team.project.lock.adapters["tone"].digest}}
    assert served.look().result == "unchanged"
    assert team.project.lock_file.read_bytes() == lock


def test_a_promotion_back_is_served_too(team: Team) -> None:
    served = started(team)
    first = served.current()["tone"].path
    team.promote("2.0.0")
    served.look()
    team.promote("1.0.0")
    served.look()
    assert revision(served) == "1.0.0" and served.current()["tone"].path == first


def test_a_restart_serves_what_the_alias_points_to(team: Team) -> None:
    team.promote("2.0.0")
    assert revision(started(team)) == "2.0.0"


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_only_the_lock_decides_where_that_is_asked_for(
    team: Team, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "variable":
        monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "lock")
    served = started(team, follow_aliases=False if how == "argument" else None)
    team.promote("2.0.0")
    assert served.look().result == "unchanged" and revision(served) == "1.0.0"
    adapterdock.lock(team.project.manifest, upgrade=["tone"])
    assert served.look().changed == ("tone",) and revision(served) == "2.0.0"


def test_an_unknown_way_to_follow_is_refused(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "yes")
    with pytest.raises(UsageError) as caught:
        Served(team.project.manifest)
    assert caught.value.code == "AD956"


def test_a_version_that_nobody_promoted_is_not_served(team: Team) -> None:
    team.use("^1.0")
    team.lock()
    served = started(team)
    team.publish("1.1.0")
    assert served.look().result == "unchanged" and revision(served) == "1.0.0"


def test_a_promoted_adapter_that_does_not_fit_leaves_the_old(team: Team) -> None:
    served = started(team)
    publish_for_another_base(team)
    team.promote("3.0.0")
    looked = served.look()
    assert revision(served) == "1.0.0"
    assert served.status()["state"] == "behind" and looked.findings
    again = served.look()
    assert codes(again.findings) == codes(looked.findings)
    team.promote("2.0.0")
    served.look()
    assert revision(served) == "2.0.0" and served.status()["state"] == "serving"


def publish_for_another_base(team: Team) -> None:
    """Version 3.0.0 is an adapter of a GPT-2, whose files say the same name of the base."""
    folder = team.project.folder / "elsewhere"
    folder.mkdir()
    desk = Project(folder)
    desk.base(kind="gpt2")
    config = lora_config(
        base_model_name_or_path=BASE, target_modules=["c_attn"], fan_in_fan_out=True
    )
    modules = {f"transformer.h.{n}.attn.c_attn": (HIDDEN, 3 * HIDDEN) for n in range(2)}
    write_adapter(folder / "tone", config, lora_tensors(modules), 7)
    manifest = folder / "publish.yaml"
    manifest.write_text(
        f"version: 1\nbase: {{model: ./base, aliases: [{BASE}]}}\n"
        "registries: {team: ../registry}\n"
    )
    publish(folder / "tone", f"team/{NAME}@3.0.0", manifest=manifest)


def test_a_registry_that_is_away_leaves_the_old_and_is_said(team: Team) -> None:
    served = started(team)
    away = team.place.with_name("away")
    team.place.rename(away)
    looked = served.look()
    assert looked.result == "unchanged" and looked.findings
    assert served.status()["state"] == "behind" and revision(served) == "1.0.0"
    away.rename(team.place)
    team.promote("2.0.0")
    served.look()
    assert served.status()["state"] == "serving" and revision(served) == "2.0.0"


def test_a_history_that_was_rewritten_is_not_followed(team: Team) -> None:
    served = started(team)
    team.promote("2.0.0")
    served.look()
    values = team.place / "adapters" / NAME / "aliases" / "prod"
    newest = sorted(values.iterdir())[-1]
    newest.chmod(0o644)
    newest.unlink()  # back to what the lock saw: older than what was served
    looked = served.look()
    assert served.status()["state"] == "behind" and codes(looked.findings)
    assert revision(served) == "2.0.0"


def test_one_bad_promotion_does_not_hold_up_another(team: Team) -> None:
    team.publish("1.0.0", name="billing")
    team.publish("2.0.0", name="billing")
    promote(team.catalogue, "billing", "1.0.0", "prod")
    team.project.write(
        {"tone": f"registry://team/{NAME}@prod", "bill": "registry://team/billing@prod"},
        registries={"team": "./registry"},
    )
    adapterdock.lock(team.project.manifest)
    served = started(team)
    publish_for_another_base(team)
    team.promote("3.0.0")
    promote(team.catalogue, "billing", "2.0.0", "prod")
    looked = served.look()
    assert looked.changed == ("bill",) and served.status()["state"] == "behind"
    assert (revision(served), served.current()["bill"].revision) == ("1.0.0", "2.0.0")


def test_a_lock_that_catches_up_is_obeyed_again(team: Team) -> None:
    served = started(team)
    team.promote("2.0.0")
    served.look()
    path = served.current()["tone"].path
    adapterdock.lock(team.project.manifest, upgrade=["tone"])
    assert served.look().result == "unchanged"
    assert served.current()["tone"].path == path and served.status()["followed"] == {}
    shutil.rmtree(team.place)
    assert served.look().result == "unchanged" and revision(served) == "2.0.0"


def test_an_alias_that_did_not_move_is_not_resolved_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = started(team)

    def again(*_: object) -> None:
        raise AssertionError("it was resolved again")

    monkeypatch.setattr("adapterdock.serving.served.reader.upgraded", again)
    looked = served.look()
    assert (looked.result, looked.findings) == ("unchanged", ())
