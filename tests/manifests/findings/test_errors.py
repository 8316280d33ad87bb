"""Exceptions: each has its findings, and is shown by the name that users import."""

from __future__ import annotations

import pickle
import traceback

import adapterdock
import pytest
from adapterdock.manifests import errors
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import AdapterdockError

NAMES = [name for name in vars(errors) if name.endswith("Error")]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_shown_and_pickled_by_its_public_name(name: str) -> None:
    kind: type[AdapterdockError] = getattr(errors, name)
    assert getattr(adapterdock, name) is kind
    error = kind(codes.EMPTY.finding("It is empty"))
    assert traceback.format_exception_only(error)[0].startswith(f"adapterdock.{name}: ")
    data = pickle.dumps(error)
    assert b"findings.errors" not in data
    again = pickle.loads(data)
    assert type(again) is kind
    assert again.findings == error.findings


def test_an_error_of_a_user_keeps_its_own_module() -> None:
    class MyError(AdapterdockError):
        pass

    assert MyError.__module__ == __name__


def test_an_error_needs_a_finding() -> None:
    with pytest.raises(TypeError, match="at least one finding"):
        AdapterdockError()
