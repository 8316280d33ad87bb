"""Removing one entry changes no other line, or is refused."""

from __future__ import annotations

import time

import pytest
from adapterdock.manifests.cut_entry import cut_entry
from adapterdock.manifests.edit import set_mapping
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.reading.document import read_document
from hypothesis import given, settings
from hypothesis import strategies as st

TONE = ("adapters", "tone")

CASES = {
    "between others": (
        "adapters:  # ours\n  a: {source: ./a}  # first\n\n  # about tone\n  tone:  # x\n"
        "    # inside\n    source: ./t\n    # after\n  # about b\n  b:\n    source: ./b\n",
        "adapters:  # ours\n  a: {source: ./a}  # first\n\n  # about b\n  b:\n    source: ./b\n",
    ),
    "the first": (
        "adapters:\n  # about adapters\n\n  tone:\n    source: ./t\n  b: {source: ./b}\n",
        "adapters:\n  # about adapters\n\n  b: {source: ./b}\n",
    ),
    "the last of the file, after a blank line": (
        "adapters:\n  a: {source: ./a}\n\n  tone:\n    source: ./t\n",
        "adapters:\n  a: {source: ./a}\n",
    ),
    "the only one": (
        "version: 1\nadapters:   # ours\n  tone:\n    source: ./t\n\nactive: []  # none\n",
        "version: 1\nadapters: {}   # ours\n\nactive: []  # none\n",
    ),
    "without a line break at the end": (
        "adapters:\n  a: {source: ./a}\n  tone: {source: ./t}",
        "adapters:\n  a: {source: ./a}\n",
    ),
    "with text over several lines": (
        "adapters:\n  tone:\n    source: ./t\n    description: |\n      one\n\n      two\n\n"
        "  # about a\n  a: {source: ./a}\n",
        "adapters:\n\n  # about a\n  a: {source: ./a}\n",
    ),
    "with carriage returns": (
        "adapters:\r\n  tone:\r\n    source: ./t\r\n  a: {source: ./a}\r\n",
        "adapters:\r\n  a: {source: ./a}\r\n",
    ),
    "in braces on one line": (
        "adapters: {a: {source: ./a}, tone: {source: ./t}, b: {source: ./b}}  # all\n",
        "adapters: {a: {source: ./a}, b: {source: ./b}}  # all\n",
    ),
    "the last in braces": (
        "adapters: {a: {source: ./a}, tone: {source: ./t}}\n",
        "adapters: {a: {source: ./a}}\n",
    ),
    "the only one in braces": ("adapters: {tone: {source: ./t}}\n", "adapters: {}\n"),
    "in braces over lines": (
        "adapters: {\n  a: {source: ./a},  # a\n  tone: {\n    source: ./t\n  },  # t\n"
        "  b: {source: ./b}  # b\n}\n",
        "adapters: {\n  a: {source: ./a},  # a\n  b: {source: ./b}  # b\n}\n",
    ),
    "the last in braces over lines": (
        "adapters: {\n  a: {source: ./a},  # a\n  tone: {source: ./t}  # t\n}\n",
        "adapters: {\n  a: {source: ./a},  # a\n}\n",
    ),
    "in braces, beside a comment about another": (
        "adapters: {a: {source: ./a}, # about a\n  tone: {source: ./t}}\n",
        "adapters: {a: {source: ./a}, # about a\n  }\n",
    ),
    "in braces, before a comment about another": (
        "adapters: {tone: {source: ./t},\n  # about a\n  a: {source: ./a}}\n",
        "adapters: {\n  # about a\n  a: {source: ./a}}\n",
    ),
    "in braces, with a comment above": (
        "adapters: {\n  # about a\n  a: {source: ./a},\n  # about tone\n  tone: {source: ./t},\n"
        "  # about b\n  b: {source: ./b},\n}\n",
        "adapters: {\n  # about a\n  a: {source: ./a},\n  # about b\n  b: {source: ./b},\n}\n",
    ),
    "in braces with the comma first": (
        "adapters: { a: {source: ./a} # a\n  , tone: {source: ./t} # t\n  , b: {source: ./b}\n}\n",
        "adapters: { a: {source: ./a} # a\n  , b: {source: ./b}\n}\n",
    ),
    "in braces with the comma after a comment": (
        "adapters: {\n  tone: {source: ./t} # x\n  , a: {source: ./a}}\n",
        "adapters: {\n # x\n   a: {source: ./a}}\n",
    ),
    "the only one in braces, with a comma": (
        "adapters: {tone: {source: ./t},}  # c\n",
        "adapters: {}  # c\n",
    ),
    "between the marks of a document": (
        "# head\n---\nadapters:\n  tone: {source: ./t}\n  a: {source: ./a}\n...\n# end\n",
        "# head\n---\nadapters:\n  a: {source: ./a}\n...\n# end\n",
    ),
    "after text that keeps its blank lines": (
        "adapters:\n  a:\n    description: |+\n      x\n\n  tone: {source: ./t}\n\n"
        "  b: {source: ./b}\n",
        "adapters:\n  a:\n    description: |+\n      x\n\n  b: {source: ./b}\n",
    ),
    "after text that does not keep its blank lines": (
        "adapters:\n  a:\n    description: |\n      x\n\n  tone: {source: ./t}\n\n"
        "  b: {source: ./b}\n",
        "adapters:\n  a:\n    description: |\n      x\n\n  b: {source: ./b}\n",
    ),
    "all in braces": (
        "{version: 1, adapters: {tone: {source: ./t}, a: {source: ./a}}}",
        "{version: 1, adapters: {a: {source: ./a}}}",
    ),
    "with a quoted key": (
        'adapters:\n  "tone": {source: ./t}\n  a: {source: ./a}\n',
        "adapters:\n  a: {source: ./a}\n",
    ),
    "with a byte order mark": (
        "\ufeffadapters:\n  tone: {source: ./t}\n  a: {source: ./a}\n",
        "\ufeffadapters:\n  a: {source: ./a}\n",
    ),
    "with an anchor that nothing uses": (
        "adapters:\n  tone: &t\n    source: ./t\n  a: {source: ./a}\n",
        "adapters:\n  a: {source: ./a}\n",
    ),
    "the only one, below an anchor": (
        "adapters: &all !!map   # ours\n  tone: {source: ./t}\nactive: []\n",
        "adapters: &all !!map {}   # ours\nactive: []\n",
    ),
    "the only one, below a quoted key": (
        "'adapters' :   # ours\n  tone: {source: ./t}\n",
        "'adapters' : {}   # ours\n",
    ),
    "which is an alias": (
        "x-t: &t {source: ./t}\nadapters:\n  tone: *t\n  a: {source: ./a}\n",
        "x-t: &t {source: ./t}\nadapters:\n  a: {source: ./a}\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_entry_is_removed_and_nothing_else(case: str) -> None:
    before, after = CASES[case]
    assert cut_entry(before, TONE) == after


@pytest.mark.parametrize(
    "text",
    [
        "adapters:\n  tone: &t\n    source: ./t\n  b: *t\n",
        "x-all: &all\n  tone: {source: ./t}\nadapters:\n  <<: *all\n  b: {source: ./b}\n",
        "adapters: &all\n  tone: {source: ./t}\nx-all: *all\n",
        "x-all: &all {tone: {source: ./t}}\nadapters: *all\n",
        "adapters:\n  ? tone\n  : {source: ./t}\n  a: {source: ./a}\n",
    ],
)
def test_an_entry_that_others_need_is_refused(text: str) -> None:
    with pytest.raises(ManifestError) as refused:
        cut_entry(text, TONE)
    (finding,) = refused.value.findings
    assert finding.code == "AD160"
    assert finding.message.startswith("Cannot remove adapters.tone: ")


def test_many_comments_in_braces_cost_no_time() -> None:
    text = "adapters: {\n  tone: 1\n" + "  # #\n" * 2000 + ", a: 1 }\n"
    started = time.process_time()
    assert read_document(cut_entry(text, TONE).encode()).data == {"adapters": {"a": 1}}
    assert time.process_time() - started < 5


_NAMES = st.lists(st.sampled_from(["a", "b", "c.d", "no", "1.5"]), unique=True, max_size=4)


@settings(max_examples=60, deadline=None)
@given(_NAMES, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.data())
def test_what_was_added_can_be_removed(
    names: list[str], braces: bool, newline: str, data: st.DataObject
) -> None:
    text = "version: 1\nadapters: {}   # ours\nactive: []\n".replace("\n", newline)
    if braces:
        text = text.replace("adapters: {}   # ours", "adapters: {z: {source: ./z}} # ours")
    for name in names:
        text = set_mapping(text, ("adapters", name), {"source": "./" + name})
    before = read_document(text.encode()).data
    for name in data.draw(st.permutations(names)):
        text = cut_entry(text, ("adapters", name))
        del before["adapters"][name]
        assert read_document(text.encode()).data == before
    assert "# ours" in text
