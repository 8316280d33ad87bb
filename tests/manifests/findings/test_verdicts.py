"""What the errors of a report mean together."""

from __future__ import annotations

import pytest
from adapterdock.manifests.findings import lock, sources, store
from adapterdock.manifests.findings.catalogue import codes_by_area
from adapterdock.manifests.findings.verdicts import BY_ID, meaning, what_is_wrong

AREAS = {
    "language": "invalid manifest",
    "sources": "cannot be read",
    "policy": "not allowed by a policy",
}


def test_codes_of_an_area_mean_what_the_area_does() -> None:
    own = {
        *(sources.SOURCE_CHANGED.id, store.NOT_AS_LOCKED.id, store.LOCAL_FILE_CHANGED.id),
        *(code.id for code in codes_by_area()["lock"]),
    }
    for area, codes in codes_by_area().items():
        for code in codes:
            if code.id not in own:
                assert meaning(code.id) == AREAS.get(area, "does not fit"), code


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (lock.LOCK_MISSING, "not locked"),
        (lock.LOCK_STALE, "lock is not current"),
        (lock.LOCK_PARTIAL, "lock is not current"),
        (lock.LOCK_UNREADABLE, "lock cannot be read"),
        (lock.LOCK_VERSION_UNKNOWN, "lock cannot be read"),
        (lock.SAMPLES_MISSING, "lock cannot be read"),
        (lock.LOCK_CONFLICT, "lock has a merge conflict"),
        (lock.CHANGED_UNDER_LOCK, "changed since it was locked"),
        (sources.SOURCE_CHANGED, "changed since it was locked"),
        (store.NOT_AS_LOCKED, "changed since it was locked"),
        (store.LOCAL_FILE_CHANGED, "changed since it was locked"),
    ],
)
def test_codes_of_locks_and_of_changed_files_have_their_own_words(
    code: lock.Code, words: str
) -> None:
    assert BY_ID[code.id] == words


def test_errors_of_several_kinds_do_not_fit() -> None:
    assert what_is_wrong(["AD101", "AD379"]) == "invalid manifest"
    assert what_is_wrong(["AD101", "AD504"]) == "does not fit"
