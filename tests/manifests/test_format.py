"""Formatting moves lines and keeps data and comments, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.format import formatted
from adapterdock.manifests.reading.document import read_document
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]

CASES = {
    "keys of the language": (
        "# yaml-language-server: $schema=x\n# Ours\n\n# what runs\nactive: tone\n"
        "adapters:\n    # about tone\n    tone:   # here\n        dtype: float16 # half\n"
        "        source:   ./tone\n    # another\n    # a1: {}\n\n\n\n"
        "    a1: {source: ./a1,   lazy: true}\n"
        "  # end of adapters\nbase: {model: ./base}  # b  \nversion:   1\n\n# end\n\n",
        "# yaml-language-server: $schema=x\n# Ours\n\nversion: 1\nbase: {model: ./base}  # b\n"
        "adapters:\n  # about tone\n  tone:   # here\n    source: ./tone\n"
        "    dtype: float16 # half\n"
        "  # another\n  # a1: {}\n\n  a1: {source: ./a1,   lazy: true}\n"
        "  # end of adapters\n# what runs\nactive: tone\n\n# end\n",
    ),
    "names keep their order": (
        "version: 1\nbase: {}\nadapters:\n b: {source: ./b}\n a: {source: ./a}\n",
        "version: 1\nbase: {}\nadapters:\n  b: {source: ./b}\n  a: {source: ./a}\n",
    ),
    "text over several lines": (
        "version: 1\nbase: {}\nadapters:\n      a:\n          description: |\n"
        "            one  \n\n\n"
        "              two\n          source: ./a\n      b:\n          description: >+\n\n"
        "            x\n\n\n          source: ./b\n      c:\n          description: 'one\n\n"
        "            two'\n          source: ./c\n",
        "version: 1\nbase: {}\nadapters:\n  a:\n    source: ./a\n    description: |\n"
        "      one  \n\n\n"
        "        two\n  b:\n    source: ./b\n    description: >+\n\n"
        "      x\n\n\n  c:\n    source: ./c\n    description: 'one\n\n"
        "      two'\n",
    ),
    "notes before what uses them": (
        "version: 1\nx-b: &b {model: ./base}\nbase: *b\nname: n\nadapters:\n  a:\n    x-note: 1\n"
        "    source: ./a\n",
        "version: 1\nname: n\nx-b: &b {model: ./base}\nbase: *b\nadapters:\n  a:\n    source: ./a\n"
        "    x-note: 1\n",
    ),
    "an anchor before its alias": (
        "version: 1\nactive: &a tone\nbase:\n   model: ./base\nname: *a\n",
        "version: 1\nactive: &a tone\nbase:\n  model: ./base\nname: *a\n",
    ),
    "an anchor that is there twice": (
        "version: 1\nname: &a two\nactive: &a one\nbase:\n   model: ./b\ndescription: *a\n",
        "version: 1\nname: &a two\nactive: &a one\nbase:\n  model: ./b\ndescription: *a\n",
    ),
    "merged keys": (
        "version: 1\nx-a: &a\n   lazy: true\nbase: {}\nadapters:\n    a:\n      <<: *a\n"
        "      source: ./a\n",
        "version: 1\nx-a: &a\n  lazy: true\nbase: {}\nadapters:\n  a:\n    <<: *a\n"
        "    source: ./a\n",
    ),
    "an overlay": (
        "adapters:\n  a: null\nextends: a.yaml\n",
        "extends: a.yaml\nadapters:\n  a: null\n",
    ),
    "marks of a document": (
        "%YAML 1.2\n---   \nbase: {}\nversion: 1\n...\n",
        "%YAML 1.2\n---\nversion: 1\nbase: {}\n...\n",
    ),
    "all in braces": ("{base: {},  version: 1}  \n\n", "{base: {},  version: 1}\n"),
    "a blank line that comes after text which keeps its blank lines": (
        "version: 1\nbase: {}\nadapters:\n  a:\n\n    tags: [t]\n    description: |+\n      x\n"
        "    source: ./a\n",
        "version: 1\nbase: {}\nadapters:\n  a:\n    source: ./a\n    description: |+\n      x\n"
        "    tags: [t]\n",
    ),
    "a blank line that comes after other text": (
        "version: 1\nbase: {}\nadapters:\n  a:\n    tags: [t]\n\n    description: |\n      x\n"
        "    source: ./a\n",
        "version: 1\nbase: {}\nadapters:\n  a:\n    source: ./a\n\n    description: |\n      x\n"
        "    tags: [t]\n",
    ),
    "text at the end without a line break": (
        "base: {}\nversion: 1\nx-note:   1\nactive: |\n   tone",
        "version: 1\nx-note: 1\nbase: {}\nactive: |\n   tone",
    ),
    "old line endings": ("base: {}\rversion: 1\r", "version: 1\rbase: {}\r"),
    "carriage returns": ("base: {}\r\nversion: 1", "version: 1\r\nbase: {}\r\n"),
    "lists": (
        "version: 1\nbase:\n    dtype: auto\n    aliases:\n    - a  # one\n    # two\n    - b\n"
        "    model: ./b\n",
        "version: 1\nbase:\n  model: ./b\n  aliases:\n  - a  # one\n  # two\n  - b\n"
        "  dtype: auto\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_is_formatted_and_stays_formatted(case: str) -> None:
    before, after = CASES[case]
    if "%YAML" in before:
        before, after = before.replace("1.2", "1.1"), after.replace("1.2", "1.1")
    assert formatted(before.encode()).decode() == after
    assert formatted(after.encode()).decode() == after


def test_what_cannot_be_formatted_is_refused() -> None:
    with pytest.raises(ManifestError) as refused:
        formatted(b"? version\n: 1\nbase: {}\n", "a.yaml")
    assert [(f.code, f.where.file) for f in refused.value.findings] == [("AD926", "a.yaml")]
    with pytest.raises(ManifestError, match="AD104"):
        formatted(b"a: [", "a.yaml")


def manifests() -> list[Path]:
    found = [*ROOT.glob("docs/**/*.yaml"), *ROOT.glob("tests/**/*.yaml"), *ROOT.glob("*.yaml")]
    return [path for path in found if path.is_file()]


def test_every_manifest_here_keeps_its_data() -> None:
    count = 0
    for path in manifests():
        data = path.read_bytes()
        try:
            before = read_document(data).data
        except ManifestError:
            continue
        after = formatted(data)
        assert read_document(after).data == before, path
        assert formatted(after) == after, path
        count += 1
    assert count


_KEYS = st.permutations(["version: 1", "name: n", "base:", "adapters:", "active: a", "rules:"])
_NOISE = st.sampled_from(["", "# c", "", "  # deep", "\n", "   "])
_INSIDE = {
    "base:": ["dtype: auto", "model: ./b", "aliases:\n  {}- x\n  {}# c\n  {}- y"],
    "adapters:": ["b: {{source: ./b}}  # b", "a:\n  {}lazy: true\n {}  source: ./a # d"],
    "rules:": ["max_active: 2", "exclusive: [[a, b]]"],
}


@settings(max_examples=150, deadline=None)
@given(_KEYS, st.data())
def test_any_order_and_indentation_is_formatted_the_same_way_twice(
    keys: list[str], data: st.DataObject
) -> None:
    lines: list[str] = []
    for key in keys:
        lines += [data.draw(_NOISE), key]
        indent = " " * data.draw(st.sampled_from([1, 2, 4, 7]))
        for inner in data.draw(st.permutations(_INSIDE.get(key, []))):
            lines += [data.draw(_NOISE), indent + inner.format(*[indent] * 3)]
    text = "\n".join([*lines, data.draw(_NOISE)])
    try:
        before = read_document(text.encode()).data
    except ManifestError:
        return
    once = formatted(text.encode())
    assert read_document(once).data == before
    assert formatted(once) == once
    assert [*read_document(once).data] == ["version", "name", "base", "adapters", "rules", "active"]
