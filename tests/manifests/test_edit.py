"""Setting one mapping changes no other byte, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.edit import set_mapping
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.reading.document import read_document
from hypothesis import given, settings
from hypothesis import strategies as st

VALUE = {"architecture": "Llama", "hidden_size": 576, "weights": {"float32": "v1:sha256:0a"}}
BLOCK = "architecture: Llama\n    hidden_size: 576\n    weights:\n      float32: v1:sha256:0a"
FLOW = "{architecture: Llama, hidden_size: 576, weights: {float32: 'v1:sha256:0a'}}"
AT = ("base", "fingerprint")

CASES = {
    "into a block": (
        "version: 1\nbase:\n  model: x   # why\n  # end of base\n\nadapters: {}  # none\n",
        f"version: 1\nbase:\n  model: x   # why\n  fingerprint:\n    {BLOCK}\n"
        "  # end of base\n\nadapters: {}  # none\n",
    ),
    "instead of an older one": (
        "base:\n  fingerprint: # made by a tool\n    # on Monday\n    architecture: 'Old' # x\n"
        '  # then\n  model: "x"\n',
        f"base:\n  fingerprint: # made by a tool\n    # on Monday\n    {BLOCK} # x\n"
        '  # then\n  model: "x"\n',
    ),
    "instead of an older one in braces": (
        "base:\n  fingerprint: {architecture: Old}  # x\n  model: x\n",
        f"base:\n  fingerprint:  # x\n    {BLOCK}\n  model: x\n",
    ),
    "instead of braces over lines": (
        "base:\n  fingerprint: {\n    architecture: Old,  # y\n  }  # x\n  model: x\n",
        f"base:\n  fingerprint:  # x\n    {BLOCK}\n  model: x\n",
    ),
    "into an empty base": (
        "base:\nadapters: {}\n",
        f"base:\n  fingerprint:\n    {BLOCK}\nadapters: {{}}\n",
    ),
    "into an empty base with a comment": (
        "base:   # to come\nadapters: {}\n",
        f"base:   # to come\n  fingerprint:\n    {BLOCK}\nadapters: {{}}\n",
    ),
    "into empty braces": (
        "base: {}  # any\nversion: 1",
        f"base:  # any\n  fingerprint:\n    {BLOCK}\nversion: 1",
    ),
    "into null": (
        "base: null\nversion: 1\n",
        f"base:\n  fingerprint:\n    {BLOCK}\nversion: 1\n",
    ),
    "into braces": (
        "base: {model: x}  # any\n",
        f"base: {{model: x, fingerprint: {FLOW}}}  # any\n",
    ),
    "into braces with a comma at the end": (
        "base: {\n  model: x,  # the model\n}\n",
        f"base: {{\n  model: x, fingerprint: {FLOW},  # the model\n}}\n",
    ),
    "into braces, instead of an older one": (
        "base: {fingerprint: {a: 1}, model: x}\n",
        f"base: {{fingerprint: {FLOW}, model: x}}\n",
    ),
    "into braces with an empty one": (
        "base: {fingerprint: , model: x}\n",
        f"base: {{fingerprint: {FLOW}, model: x}}\n",
    ),
    "without base": (
        "version: 1\n# the end\n",
        f"version: 1\nbase:\n  fingerprint:\n    {BLOCK}\n# the end\n",
    ),
    "without a line break at the end": (
        "version: 1",
        f"version: 1\nbase:\n  fingerprint:\n    {BLOCK}",
    ),
    "after a text block": (
        "base:\n  model: |\n    x\n\n# next\nversion: 1\n",
        f"base:\n  model: |\n    x\n\n  fingerprint:\n    {BLOCK}\n# next\nversion: 1\n",
    ),
    "after a list": (
        "base:\n  aliases:\n  - a\n  - b # c\nversion: 1\n",
        f"base:\n  aliases:\n  - a\n  - b # c\n  fingerprint:\n    {BLOCK}\nversion: 1\n",
    ),
    "beside a merge": (
        "x-b: &b {model: x}\nbase:\n  <<: *b\n  dtype: auto\n",
        f"x-b: &b {{model: x}}\nbase:\n  <<: *b\n  dtype: auto\n  fingerprint:\n    {BLOCK}\n",
    ),
    "after a comment that is inside the last entry": (
        "base:\n  # the model\n  model: x\n    # not y\n\n    # nor z\n\n  # end\nversion: 1\n",
        "base:\n  # the model\n  model: x\n    # not y\n\n    # nor z\n"
        f"  fingerprint:\n    {BLOCK}\n\n  # end\nversion: 1\n",
    ),
    "into braces with a comment only": (
        "base: &b { # to come\n}\nversion: 1\n",
        f"base: &b {{fingerprint: {FLOW} # to come\n}}\nversion: 1\n",
    ),
    "between the marks of a document": (
        "---\nversion: 1\n...\n# end\n",
        f"---\nversion: 1\nbase:\n  fingerprint:\n    {BLOCK}\n...\n# end\n",
    ),
    "all in braces": (
        "{version: 1, base: {}}",
        f"{{version: 1, base: {{fingerprint: {FLOW}}}}}",
    ),
}


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES.keys())
def test_the_mapping_is_set_and_nothing_else_changes(before: str, after: str) -> None:
    assert set_mapping(before, AT, VALUE) == after
    assert read_document(after.encode()).data["base"]["fingerprint"] == VALUE


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES.keys())
def test_other_line_endings_are_kept(before: str, after: str) -> None:
    for newline in ("\r\n", "\r"):
        result = set_mapping(before.replace("\n", newline), AT, VALUE)
        if "\n" in before:
            assert "\n" not in result.replace(newline, "")
    marked = set_mapping("\ufeff" + before, AT, VALUE)
    assert marked == "\ufeff" + set_mapping(before, AT, VALUE)


def test_deeper_indentation_is_followed() -> None:
    text = "base:\n    model: x\n"
    assert set_mapping(text, AT, {"a": {"b": 1}}) == (
        "base:\n    model: x\n    fingerprint:\n        a:\n            b: 1\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "x-b: &b {model: x}\nbase: *b\n",
        "base: &b {}\nx-c: *b\n",
        "base: text\n",
        "base: [a]\n",
        "<<: &x {base: {model: y}}\nversion: 1\n",
        "base:\n  fingerprint: &f {a: 1}\n  x-f: *f\n",
        "base: {fingerprint, model: x}\n",
    ],
)
def test_an_edit_that_would_change_something_else_is_refused(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        set_mapping(text, AT, VALUE)
    assert caught.value.code == "AD160"


def test_an_alias_on_the_path_is_named() -> None:
    with pytest.raises(ManifestError, match="'base' is an alias"):
        set_mapping("x-b: &b {model: x}\nbase: *b\n", AT, VALUE)


def test_text_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        set_mapping("a: [", AT, VALUE)
    assert caught.value.code == "AD104"


def test_setting_a_mapping_twice_changes_nothing() -> None:
    for before, _ in CASES.values():
        once = set_mapping(before, AT, VALUE)
        assert set_mapping(once, AT, VALUE) == once


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["no", "1.0", "~", "a: b", "# c", "'", '"', "- x", "*a", "&a", "", " ", "y"]),
)
VALUES = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([before for before, _ in CASES.values()]))
def test_any_mapping_is_read_back_and_the_rest_is_kept(value: Any, before: str) -> None:
    try:
        after = set_mapping(before, AT, value)
    except ManifestError as error:
        # a lone surrogate, or "<<" as a key beside mappings, cannot be written
        assert error.code in ("AD160", "AD104", "AD103")
        return
    old, new = read_document(before.encode()).data, read_document(after.encode()).data
    old_base, new_base = old.get("base") or {}, new["base"]
    assert repr(new_base["fingerprint"]) == repr(value)
    assert {k: v for k, v in new_base.items() if k != "fingerprint"} == {
        k: v for k, v in old_base.items() if k != "fingerprint"
    }
    assert {k: v for k, v in new.items() if k != "base"} == {
        k: v for k, v in old.items() if k != "base"
    }
    if "base" in before:
        assert after.startswith(before.split("fingerprint")[0].split("base")[0])
    for line in before.splitlines():
        comment = line.partition("#")[2]
        if comment.strip() not in ("y",):  # a comment within what was replaced
            assert comment in after
