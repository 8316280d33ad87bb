"""Large and hostile manifests, up to 1 MiB, are checked in limited time."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from adapterdock.manifests.bounds import FINDINGS
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.language.rules import MAX_NESTING
from support.manifest_files import DIGEST, HEADER, Desk

ONE = "adapters: {a: {source: ./a}}\n"


def nested(count: int, of: str) -> str:
    sums = "".join(f"  s{i}: {{of: {of.format(i - 1)}}}\n" for i in range(1, count))
    return ONE + "compositions:\n  s0: {of: {a: 1}}\n" + sums


HOSTILE = {
    "unknown keys": "".join(f"k{i}: 1\n" for i in range(40_000)),
    "unknown members": ONE
    + "compositions:\n  m: {of: {"
    + ", ".join(f"b{i}: 1" for i in range(30_000))
    + "}}\n",
    "unknown names among many": "adapters:\n"
    + "".join(f"  a{i}: {{source: ./a{i}}}\n" for i in range(15_000))
    + f"active: [{', '.join(f'b{i}' for i in range(15_000))}]\n",
    "a long chain of sums": nested(20_000, "{{s{0}: 1}}"),
    "sums that double": nested(MAX_NESTING - 1, "{{s{0}: 1, a: 1}}")
    + "".join(
        f"  {name}{i}: {{of: {{t{i - 1}: 1, u{i - 1}: 1}}}}\n"
        for i in range(1, MAX_NESTING - 1)
        for name in "tu"
    )
    + "  t0: {of: {a: 1}}\n  u0: {of: {a: 1}}\n",
    "many circles": ONE
    + "compositions:\n"
    + "".join(
        f"  c{i}: {{of: {{{', '.join(f'c{j}: 1' for j in range(200) if j != i)}}}}}\n"
        for i in range(200)
    ),
    "many dollars": f"adapters: {{a: {{source: './{'$' * 500_001}'}}}}\n",
    "many bad dollars": f"adapters: {{a: {{source: './{'$x' * 200_000}'}}}}\n",
    "many unset variables": f"adapters: {{a: {{source: './{'${X}' * 100_000}'}}}}\n",
    "many secrets": "".join(f"# AKIA{i:016d}\n" for i in range(40_000)),
    "wrong weights": ONE
    + "compositions:\n"
    + "".join(f"  c{i}: {{of: {{a: x}}}}\n" for i in range(20_000)),
}


@pytest.mark.parametrize("sign", ["$x", "${X}", "${A_TOKEN}"])
def test_many_bad_variables_take_limited_memory(sign: str, desk: Desk) -> None:
    """Each finding would contain the complete value: 200 KB needed gigabytes."""
    text = f"{HEADER}adapters: {{a: {{source: './{sign * 20_000}'}}}}\n"
    tracemalloc.start()
    found = desk.findings(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 1 and len(found[0].found or "") <= 80
    assert peak < 100 * len(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_is_refused_in_limited_time(text: str, desk: Desk) -> None:
    start = time.process_time()
    try:
        desk.read(HEADER + text)
    except ManifestError as error:
        assert len(error.findings) <= FINDINGS + 1
        assert len(str(error)) < 500_000
    assert time.process_time() - start < 20


def test_findings_above_the_limit_are_counted(desk: Desk) -> None:
    found = desk.findings(HEADER + "".join(f"k{i}: 1\n" for i in range(500)))
    assert len(found) == FINDINGS + 1
    assert found[-1].code == "AD199"
    assert "300 more" in found[-1].message


def test_sums_can_be_nested_up_to_the_limit(desk: Desk) -> None:
    desk.read(HEADER + nested(MAX_NESTING, "{{s{0}: 1}}"))
    found = desk.findings(HEADER + nested(MAX_NESTING + 1, "{{s{0}: 1}}"))
    assert [f.code for f in found] == ["AD173"]
    assert "too deep" in found[0].message


def test_a_catalogue_of_two_thousand_adapters_is_read(desk: Desk) -> None:
    text = HEADER + "adapters:\n"
    for index in range(2000):
        text += (
            f"  adapter-{index}:\n    source: hf://acme/lora-{index}@main\n    sha256: {DIGEST}\n"
            "    owner: team\n    storage_options: {endpoint_url: '${S3:-}'}\n"
        )
    start = time.process_time()
    assert len(desk.read(text).manifest.adapters) == 2000
    assert time.process_time() - start < 5
