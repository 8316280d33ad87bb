"""API keys, and what a policy allows them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.manifests.language.schema import Policy
from adapterdock.manifests.reading import bounded_file
from adapterdock.serving.app.keys import Keys, read_keys

KEY, OTHER = "k" * 20, "o" * 20


def test_a_key_is_known_by_its_name() -> None:
    keys = read_keys(f"mobile={KEY}, web={OTHER}")
    caller = keys.caller(f"Bearer {KEY}", ())
    assert caller is not None and caller.name == "mobile"
    assert KEY not in repr(keys)


@pytest.mark.parametrize("header", [None, "", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
def test_another_header_is_nobody(header: str | None) -> None:
    assert read_keys(f"mobile={KEY}").caller(header, ()) is None


def test_a_server_without_keys_answers_everyone() -> None:
    caller = Keys().caller(None, ())
    assert caller is not None and caller.may_use("anything") and not caller.restricted


def test_keys_come_from_a_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\nmobile={KEY}\n\nmobile={OTHER}\n")
    keys = read_keys(f"file:{path}")
    names = [keys.caller(f"bearer {key}", ()) for key in (KEY, OTHER)]
    assert [one.name for one in names if one] == ["mobile", "mobile"]


def test_keys_come_from_a_pipe_and_a_silent_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(f"mobile={KEY}\n",), daemon=True)
    writer.start()
    assert read_keys(f"file:{pipe}").caller(f"Bearer {KEY}", ()) is not None
    writer.join(5)
    monkeypatch.setattr(bounded_file, "PIPE_SECONDS", 0.3)
    with pytest.raises(UsageError, match="nothing arrived through this pipe") as refused:
        read_keys(f"file:{pipe}")
    assert refused.value.code == "AD973"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ,\n",
        "mobile",
        f"={KEY}",
        "mobile=sesame",
        f"a={KEY},b={KEY}",
        f"a b={KEY}",
        "file:/no",
    ],
)
def test_a_value_that_cannot_be_used_is_refused_and_no_key_is_shown(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_keys(text)
    assert refused.value.code == "AD973"
    assert KEY not in str(refused.value) and "sesame" not in str(refused.value)


def test_each_policy_must_allow_an_adapter() -> None:
    keys = read_keys(f"mobile={KEY}")
    policies = (
        Policy(allow_keys={"mobile": ("team-*", "tone")}),
        Policy(),
        Policy(allow_keys={"mobile": ("team-*",)}),
    )
    caller = keys.caller(f"Bearer {KEY}", policies)
    assert caller is not None and caller.restricted
    allowed = [name for name in ("team-a", "tone", "__base__") if caller.may_use(name)]
    assert allowed == ["team-a"]


def test_a_key_that_a_policy_does_not_list_may_use_nothing() -> None:
    keys, policies = read_keys(f"web={KEY}"), (Policy(allow_keys={"mobile": ("*",)}),)
    caller = keys.caller(f"Bearer {KEY}", policies)
    assert caller is not None and not caller.may_use("tone")


def test_without_keys_a_policy_about_keys_allows_nothing() -> None:
    caller = Keys().caller(None, (Policy(allow_keys={"mobile": ("*",)}),))
    assert caller is not None and not caller.may_use("tone")
