"""What a replica serves beside the lock: every state of an adapter, of a base and of a replica."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.language.schema import Fingerprint
from adapterdock.manifests.lockfile import Lock, LockedAdapter, LockedBase, LockedComposition
from adapterdock.serving.copies.joined import joined_digest
from adapterdock.serving.fleet.address import Replica, parse_address
from adapterdock.serving.fleet.answers import Asked, ModelsAnswer, NoAnswer, StatusAnswer
from adapterdock.serving.fleet.compare import ReplicaRow, compare, exit_status

REPLICA = Replica(parse_address("http://a:8000"))


def digest(figure: str) -> str:
    return f"sha256:{figure * 64}"


def fingerprint(figure: str) -> str:
    return f"v1:{digest(figure)}"


def adapter(figure: str | None) -> LockedAdapter:
    pinned = None if figure is None else digest(figure)
    return LockedAdapter(
        declared="./x", source="./x", digest=pinned, method="LORA", rank=4, mutable=figure is None
    )


LOCK = Lock(
    version=1,
    generator="test",
    inputs=digest("0"),
    base=LockedBase(
        declared="./base",
        source="./base",
        files={},
        fingerprint=Fingerprint(structure=fingerprint("a"), config=fingerprint("b")),
    ),
    adapters={"legal": adapter("1"), "tone": adapter("2")},
    compositions={"both": LockedComposition(combine="sum", digest=digest("3"))},
)
SERVED = {"legal": digest("1"), "tone": digest("2"), "both": digest("3")}


def status(**changes: Any) -> StatusAnswer:
    told: dict[str, Any] = {
        "engine": "vllm 0.32.0",
        "state": "serving",
        "adapters": SERVED,
        "wanted": SERVED,
        "fingerprint": {"structure": fingerprint("a")},
        **changes,
    }
    return StatusAnswer(**told)


def row(answer: Any, lock: Lock = LOCK) -> ReplicaRow:
    (made,) = compare(lock, [Asked(REPLICA, answer)])
    return made


def states(one: ReplicaRow) -> dict[str, str]:
    return {adapter.name: adapter.state for adapter in one.adapters}


def test_a_replica_that_serves_what_the_lock_pins_is_the_same() -> None:
    one = row(status())
    assert (one.state, one.same, one.expected, one.findings) == ("same", 3, 3, ())
    assert set(states(one).values()) == {"same"}
    assert exit_status([one]) == 0


@pytest.mark.parametrize(
    ("served", "name", "state"),
    [
        ({**SERVED, "tone": digest("9")}, "tone", "differs"),
        ({k: v for k, v in SERVED.items() if k != "tone"}, "tone", "missing"),
        ({**SERVED, "more": digest("9")}, "more", "extra"),
        ({**SERVED, "both": digest("9")}, "both", "differs"),
    ],
)
def test_other_content_missing_and_extra_adapters_differ(
    served: dict[str, str], name: str, state: str
) -> None:
    one = row(status(adapters=served, wanted=served))
    assert (one.state, states(one)[name]) == ("differs", state)
    assert [f.code for f in one.findings] == ["AD977"]
    assert name in (one.findings[0].found or "")
    assert exit_status([one]) == 1


def test_a_replica_that_is_to_serve_what_the_lock_pins_is_behind() -> None:
    problems = ("AD604: No space left",)
    one = row(status(adapters={**SERVED, "tone": digest("9")}, problems=problems))
    assert one.state == "behind"
    assert "No space left" in (one.findings[0].found or "")
    assert exit_status([one]) == 1


def test_a_replica_that_follows_a_promotion_says_how_to_move_the_pin() -> None:
    served = {**SERVED, "tone": digest("9"), "both": digest("8")}
    one = row(status(adapters=served, wanted=served, followed={"tone": digest("2")}))
    assert one.state == "differs"
    (finding,) = one.findings
    assert finding.message.endswith("a promotion that the lock does not have: tone")
    assert "both: another content" in (finding.found or "")
    assert "`adapterdock lock --upgrade tone`" in (finding.hint or "")
    other_lock = row(status(adapters=served, wanted=served, followed={"tone": digest("7")}))
    assert "promotion" not in other_lock.findings[0].message


def test_an_adapter_that_the_lock_does_not_have_is_not_taken_for_a_promotion() -> None:
    served = {**SERVED, "more": digest("9")}
    (finding,) = row(status(adapters=served, wanted=served)).findings
    assert finding.message == "The replica does not serve what the lock pins"
    assert "--upgrade" not in (finding.hint or "")
    both = row(status(adapters={**served, "tone": digest("8")}, followed={"tone": digest("2")}))
    assert both.findings[0].message.endswith("a promotion that the lock does not have: tone")


def test_a_replica_without_adapters_that_wants_them_is_behind() -> None:
    one = row(status(adapters={}, state="starting"))
    assert (one.state, one.same, one.expected) == ("behind", 0, 3)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ({"structure": fingerprint("a"), "config": fingerprint("b")}, "same"),
        ({"structure": fingerprint("a"), "chat_template": fingerprint("9")}, "same"),
        ({"structure": fingerprint("a"), "config": fingerprint("9")}, "differs"),
        (fingerprint("a"), "same"),
        (fingerprint("9"), "differs"),
        (None, "unknown"),
        ({}, "unknown"),
        ({"invented": fingerprint("a")}, "unknown"),
        ({"structure": {"structure": 3}}, "unknown"),
    ],
)
def test_the_base_is_compared_by_its_fingerprint(found: Any, state: str) -> None:
    one = row(status(fingerprint=found, base="org/other"))
    assert one.state == state
    assert [f.code for f in one.findings] == {"same": [], "differs": ["AD977"]}.get(
        state, ["AD978"]
    )


def test_another_base_is_never_merely_behind() -> None:
    one = row(status(fingerprint=fingerprint("9"), adapters={}))
    assert one.state == "differs"


def test_a_lock_without_a_base_compares_adapters_only() -> None:
    assert row(status(fingerprint=None), LOCK.model_copy(update={"base": None})).state == "same"


def test_an_adapter_that_the_lock_does_not_pin_is_unknown() -> None:
    lock = LOCK.model_copy(update={"adapters": {"legal": adapter("1"), "tone": adapter(None)}})
    one = row(status(), lock)
    assert (one.state, states(one)["tone"]) == ("unknown", "unknown")
    assert one.findings[0].found == "tone"
    assert exit_status([one]) == 3


def models(**roots: str | None) -> ModelsAnswer:
    paths = {name: f"/served/{value.removeprefix('sha256:')}" for name, value in SERVED.items()}
    return ModelsAnswer({"base": "/models/base", **paths, **roots}, frozenset({"base"}))


def test_paths_with_digests_are_compared_where_there_is_no_status() -> None:
    one = row(models())
    assert (one.state, one.asked, one.same) == ("same", "models", 3)
    other = row(models(tone=f"/served/{'9' * 64}/tone"))
    assert (other.state, states(other)["tone"]) == ("differs", "differs")
    more = row(ModelsAnswer({**models().roots, "more": "/x"}, frozenset({"base"})))
    assert (more.state, states(more)["more"]) == ("differs", "extra")
    none = row(ModelsAnswer({"base": "/models/base"}, frozenset({"base"})))
    assert (none.state, none.same, none.expected) == ("differs", 0, 3)


def test_a_joined_composition_has_the_digest_of_its_recipe_or_of_its_folder() -> None:
    assert row(models(both=f"/adapters/{joined_digest(digest('3'))[7:]}")).state == "same"
    assert row(models(both=f"/adapters/{joined_digest(digest('4'))[7:]}")).state == "differs"


@pytest.mark.parametrize("root", ["/adapters/tone", None, "", "2" * 65, f"x{'2' * 64}", "2" * 63])
def test_paths_without_digests_are_unknown(root: str | None) -> None:
    one = row(models(tone=root))
    assert (one.state, states(one)["tone"]) == ("unknown", "unknown")
    assert [f.code for f in one.findings] == ["AD978"]


def test_a_replica_that_was_not_asked_is_unknown() -> None:
    one = row(NoAnswer("no answer in 10 seconds"))
    assert (one.state, one.asked, set(states(one).values())) == ("unknown", None, {"unknown"})
    assert "no answer in 10 seconds" in one.findings[0].message
    assert exit_status([one]) == 3


def test_a_difference_outranks_what_is_unknown() -> None:
    rows = compare(LOCK, [Asked(REPLICA, NoAnswer("down")), Asked(REPLICA, status(adapters={}))])
    assert exit_status(rows) == 1
