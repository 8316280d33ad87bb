"""The YAML reader: positions, limits, and any bytes as input."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import yaml
from adapterdock.manifests.bounds import MANIFEST_BYTES
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.findings.finding import Finding
from adapterdock.manifests.reading.document import Document, compose, read_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def refusal(data: bytes) -> Finding:
    with pytest.raises(ManifestError) as caught:
        read_document(data, "a.yaml")
    return caught.value.findings[0]


def test_values_are_read_by_yaml_1_2() -> None:
    text = """
    text: [no, on, yes, y, 2024-01-01, 0b1, 1_000, 12:30, 0o9, 1e, "12", 'true', !!str 5]
    numbers: [0o10, 0x1F, 1.0, 2.10, 1e3, .5, -7, +3, 010]
    others: [true, False, null, ~, ]
    """
    data = read_document(text.encode()).data
    assert data["text"] == [
        *("no", "on", "yes", "y", "2024-01-01", "0b1", "1_000", "12:30", "0o9", "1e"),
        *("12", "true", "5"),
    ]
    assert data["numbers"] == [8, 31, 1.0, 2.1, 1000.0, 0.5, -7, 3, 10]
    assert data["others"] == [True, False, None, None]


def test_every_key_and_value_has_its_line_and_column() -> None:
    text = "a:\n  b: 1\n  'c d':\n    - x\n    - {k: v}\n"
    document = read_document(text.encode(), "f.yaml")

    def at(*path: str | int, key: bool = False) -> tuple[int | None, int | None]:
        where = document.where(path, key=key)
        return where.line, where.column

    assert at("a", key=True) == (1, 1)
    assert at("a", "b", key=True) == (2, 3)
    assert at("a", "b") == (2, 6)
    assert at("a", "c d", key=True) == (3, 3)
    assert at("a", "c d", 0) == (4, 7)
    assert at("a", "c d", 1, "k") == (5, 11)
    assert at("a", "nowhere", "at", "all") == (1, 1)  # the key of the nearest
    assert str(document.where(("a", "c d", 1))) == "f.yaml:5:7 (a.c d[1])"


def test_columns_count_characters_without_the_byte_order_mark() -> None:
    document = read_document("\ufeffé: {😀: x}\r\nb: 2\r\n".encode())
    assert document.where(("é", "😀")).column == 8
    assert document.where(("b",)).line == 2


def test_anchors_and_merge_keys_work() -> None:
    text = """
    x-one: &one {dtype: float32, owner: us}
    x-two: &two {owner: them, tags: [t]}
    a: {<<: *one, owner: me}
    b:
      <<: [*one, *two]
      source: ./b
    c: *one
    """
    data = read_document(text.encode()).data
    assert data["a"] == {"dtype": "float32", "owner": "me"}
    assert data["b"] == {"dtype": "float32", "owner": "us", "tags": ["t"], "source": "./b"}
    assert data["c"] == {"dtype": "float32", "owner": "us"}


def test_a_quoted_merge_sign_is_a_key() -> None:
    assert read_document(b"'<<': 1\n").data == {"<<": 1}


def test_both_lines_of_a_duplicate_key_are_named() -> None:
    finding = refusal(b"a: 1\nb: 2\na: 3\n")
    assert "first in line 1, again in line 3" in finding.message
    assert (finding.where.line, finding.where.column) == (3, 1)


def test_the_same_key_in_two_mappings_is_not_a_duplicate() -> None:
    assert read_document(b"a: {k: 1}\nb: {k: 2}\n").data == {"a": {"k": 1}, "b": {"k": 2}}


def test_a_file_above_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    line = b"# " + b"x" * 97 + b"\n"
    assert refusal(line * 11_000).code == "AD102"
    full = b"a: 1\n" + b"#" * (MANIFEST_BYTES - 5)
    assert len(full) == MANIFEST_BYTES
    assert read_document(full).data == {"a": 1}


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        ("a: 1\nb: ü\n".encode("latin-1"), 2, 4),
        ("a: 1\n".encode("utf-16"), 1, 1),
        (b"\xff\xd8\xff\xe0 a picture", 1, 1),
    ],
)
def test_other_encodings_are_refused_at_their_first_wrong_byte(
    data: bytes, line: int, column: int
) -> None:
    finding = refusal(data)
    assert (finding.code, finding.where.line, finding.where.column) == ("AD103", line, column)


def test_an_alias_bomb_is_refused_at_once_with_its_line() -> None:
    lines = ["x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 30)]
    start = time.process_time()
    finding = refusal("\n".join(lines).encode())
    assert time.process_time() - start < 0.5
    assert (finding.code, finding.where.line) == ("AD108", 6)


def test_a_bomb_of_merge_keys_is_refused() -> None:
    lines = ["x0: &x0 {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}"]
    lines += [f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    assert refusal("\n".join(lines).encode()).code == "AD108"


def test_nesting_through_aliases_is_limited() -> None:
    text = "a: &a " + "[" * 20 + "]" * 20 + "\nb: &b " + "[" * 20 + "*a" + "]" * 20 + "\n"
    finding = refusal(text.encode())
    assert (finding.code, finding.where.line) == ("AD107", 2)


def test_too_many_values_are_refused() -> None:
    assert refusal(b"a: [" + b"1," * 110_000 + b"]").code == "AD108"


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 500_000,
        b"{" * 500_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"a: " * 300_000,
        b"*a " * 300_000,
        b"&a " * 300_000,
        b"!a " * 300_000,
        b"a: |\n" + b"\n" * 1_000_000,
        b'a: "' + b"\\\n" * 500_000,
        b"a: " + b"x " * 500_000,
        b"%TAG ! x\n" * 100_000,
        b"a: '" + b"''" * 500_000,
        b"sk-" * 300_000,
        b"a: '" + b"-eyJa" * 200_000,
        b"a: " + b"https://" * 120_000,
        b"a: " + b"?a=b" * 200_000,
        b"#" * 1_000_000,
        b"a: [" + b"\n" * 1_000_000,
    ],
    ids=lambda data: repr(data[:8]),
)
def test_hostile_text_is_refused_in_limited_time(data: bytes) -> None:
    start = time.process_time()
    with contextlib.suppress(ManifestError):
        read_document(data)
    assert time.process_time() - start < 5


YAML_BITS = st.lists(
    st.sampled_from(
        [
            *("a", "b: ", ":", " ", "\n", "- ", "? ", "[", "]", "{", "}", ",", '"', "'", "|"),
            *(">", "#", "&x ", "*x", "!!str ", "!t ", "<<: ", "---\n", "...\n", "%YAML 1.1\n"),
            *("\t", "\\", "\\x", "é", "😀", "\r\n", "\ufeff", "\x85", "\u2028", "1", "~", "@"),
            *("`", "\\ud800", "\\U0011"),
        ]
    ),
    max_size=25,
).map(lambda bits: "".join(bits).encode())


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.binary(max_size=60), YAML_BITS))
def test_any_bytes_are_a_document_or_a_manifest_error(data: bytes) -> None:
    for loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        document, findings = compose(data, "a.yaml", loader)
        assert document is not None or findings
        for finding in findings:
            assert finding.where.line is None or finding.where.line >= 1
            assert finding.where.column is None or finding.where.column >= 1
    try:
        assert isinstance(read_document(data), Document)
    except ManifestError as error:
        assert error.findings


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"])),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text("abé x", min_size=1), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1), st.booleans())
def test_what_pyyaml_writes_is_read_the_same_by_both_scanners(data: Any, flow: bool) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow)
    one, _ = compose(text.encode(), "a", yaml.SafeLoader)
    two, findings = compose(text.encode(), "a", yaml.CSafeLoader)
    assert not findings
    assert one is not None
    assert two is not None
    assert one.root == two.root


def test_a_message_never_repeats_the_content_of_the_file() -> None:
    for text in (
        b"a: *hunter22",
        b"a: !hunter22 x",
        b'a: "hunter22',
        b"a: [hunter22",
        b"a: @hunter22",
    ):
        assert "hunter22" not in str(refusal(text))


def test_a_syntax_error_points_to_the_opening_quote_or_bracket() -> None:
    finding = refusal(b"a: 1\nb: {c: 1,\nd: 2\ne: 3\n")
    assert finding.where.line == 2
    finding = refusal(b"a:\n  - 1\n b: 2\n")
    assert finding.where.line == 3
    assert "line 1" in finding.message
