"""Patterns from strangers: PEFT's meaning, in bounded time."""

from __future__ import annotations

import re
import time
import warnings

import pytest
from adapterdock.registry.methods.patterns import PatternError, Patterns, PatternTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.from_regex(r"[ab1](\.[ab1]{1,2}){0,4}", fullmatch=True)
PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "1",
            ".",
            r"\.",
            r"\d",
            r"\w",
            ".*",
            ".*?",
            "+",
            "*",
            "?",
            "|",
            "(",
            ")",
            "(?:",
        ),
        *("[", "]", "^", "$", "{", "}", "{2}", "{1,2}", "{,1}", "{e<=1}", "{}", "{e}", "(?i)"),
        *("(?=", "(?<!", r"\b", "A", "-", "[^.]", r"\{", "&&", "||", "~~", "--"),
    ]
)
TEXTS = st.lists(PIECES, max_size=7).map("".join)


@settings(SLOW, max_examples=500)
@given(TEXTS, st.lists(NAMES | st.sampled_from(["a{e}", "a{}", "a{e<=1}", "{"]), max_size=4))
def test_a_pattern_matches_what_re_matches(pattern: str, names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = [re.fullmatch(pattern, name) is not None for name in names]
            re.compile(pattern)
        except re.error:
            with pytest.raises(PatternError):
                Patterns().check(pattern + "(")  # and no other exception
            return
    assert [Patterns().match_all(pattern, name) for name in names] == wanted


@settings(SLOW, max_examples=300)
@given(
    st.dictionaries(TEXTS | NAMES, st.integers(0, 9), max_size=4),
    st.lists(NAMES, min_size=1, max_size=4),
)
def test_the_first_pattern_wins_as_in_peft(table: dict[str, int], names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for pattern in table:
                re.compile(pattern)  # PEFT would also accept ")(", which is invalid by itself
            wanted = [table.get(get_pattern_key(list(table), name), -1) for name in names]
        except re.error:
            return
        wanted = [
            value if any(re.match(rf"(.*\.)?({p})$", name) for p in table) else -1
            for value, name in zip(wanted, names, strict=True)
        ]
    ours = PatternTable(table, Patterns())
    assert [ours.get(name, -1) for name in names] == wanted


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("q_proj", "model.layers.0.q_proj", True),
        ("q_proj", "model.layers.0.aq_proj", False),
        ("layers.1.q_proj", "layersX1Xq_proj", True),  # a dot is any character, as in PEFT
        ("layers.1.q_proj", "model.layers.11.q_proj", False),
        ("^model.q_proj", "model.q_proj", True),
        ("^model.q_proj", "x.model.q_proj", False),
        (r"layers\.[01]\.q_proj", "model.layers.1.q_proj", True),
    ],
)
def test_a_rank_pattern_matches_the_tail_of_a_name(pattern: str, name: str, matches: bool) -> None:
    found = PatternTable({pattern: 1}, Patterns()).get(name, 0)
    assert found == int(matches)
    assert (re.match(rf"(.*\.)?({pattern})$", name) is not None) is matches


@pytest.mark.parametrize(
    "pattern",
    ["(a|aa)+$", "(a*)*b" * 6, "^(([a-z])+.)+[A-Z]([a-z])+$", "(?:a?){30}a{30}", r"(\w+\s?)*\1z"],
)
def test_a_catastrophic_pattern_is_stopped_in_time(pattern: str) -> None:
    patterns = Patterns(seconds=0.3)
    started = time.thread_time()
    try:
        for length in range(300, 400):
            patterns.match_all(pattern, "a" * length + "!")
    except PatternError as error:
        assert error.too_slow
    assert time.thread_time() - started < 3


def test_a_catastrophic_pattern_is_too_slow_and_a_similar_one_passes() -> None:
    with pytest.raises(PatternError) as caught:
        Patterns(0.2).match_all(r"(a|aa)+\.q_proj", "a" * 200 + ".k_proj")
    assert caught.value.too_slow
    assert Patterns(0.2).match_all(r"a+\.q_proj", "a" * 200 + ".q_proj")


def test_all_patterns_of_an_adapter_share_one_budget() -> None:
    patterns = Patterns(seconds=0.0)
    with pytest.raises(PatternError) as caught:
        patterns.match_all("a.*", "abc")
    assert caught.value.too_slow


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        ("(((a{1000}){1000}){1000})", True),  # compiling it would take all memory
        ("a" * 20_000 + "+", True),
        ("(" * 3000 + ")" * 3000, False),
        ("a(", False),
        ("*", False),
        ("[[:alpha:]]", False),
        (r"\p{L}", False),
        ("(?R)", False),
        ("a{9999999999999999999}", True),
    ],
)
def test_an_invalid_pattern_is_refused(pattern: str, slow: bool) -> None:
    with pytest.raises(PatternError) as caught:
        Patterns().check(pattern)
    assert caught.value.too_slow is slow


def test_moderate_counted_repeats_pass() -> None:
    assert Patterns().match_all(r"layers\.\d{1,3}\.[a-z]{1,20}", "layers.12.mlp")


def test_regex_is_not_imported_for_plain_names() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from adapterdock.registry.methods.patterns import Patterns, PatternTable; "
        "p = Patterns(); p.check('model.q_proj'); p.match_inside('lm_head', 'lm_head'); "
        "assert PatternTable({'a.b': 1}, p).get('x.a.b', 0) == 1; "
        "assert 'regex' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
