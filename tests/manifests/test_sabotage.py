"""Every code of the language: a manifest that earns it, and at which line and column."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from adapterdock.manifests.findings.catalogue import all_codes
from adapterdock.manifests.findings.errors import ManifestError
from support.manifest_files import DIGEST, Desk

TWO = "adapters:\n  billing: {source: ./billing}\n  tone: {source: ./tone}\n"


class Case(NamedTuple):
    code: str
    text: str
    line: int
    column: int
    path: str = ""


CASES = {
    # reading
    "a tab": Case("AD104", "version: 1\nadapters:\n\ttone: {source: ./x}\n", 3, 1),
    "an open bracket": Case("AD104", "version: 1\nactive: [a,\nname: b\n", 2, 9),
    "an open quote": Case("AD104", "version: 1\nname: 'desk\n", 2, 7),
    "a colon in text": Case("AD104", "version: 1\ndescription: so: what\n", 2, 16),
    "bad indentation": Case("AD104", "version: 1\n  name: desk\n", 2, 7),
    "a key without colon": Case("AD104", "version: 1\nname\n", 2, 1),
    "an at sign": Case("AD104", "version: 1\nname: @desk\n", 2, 7),
    "a control character": Case("AD104", 'version: 1\nname: "a\x07"\n', 2, 9),
    "a bad escape": Case("AD104", 'version: 1\nname: "\\q"\n', 2, 8),
    "nothing": Case("AD105", "", 1, 1),
    "only comments": Case("AD105", "# nothing\n\n", 1, 1),
    "two documents": Case("AD106", "version: 1\n---\nversion: 1\n", 2, 1),
    "deep lists": Case("AD107", "version: 1\nx-a: " + "[" * 40 + "]" * 40 + "\n", 2, 37),
    "an alias bomb": Case(
        "AD108",
        "version: 1\nx-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        6,
        6,
    ),
    "an undefined alias": Case("AD109", "version: 1\nbase: {float32_modules: [*norm]}\n", 2, 26),
    "an alias of itself": Case("AD109", "version: 1\nx-a: &a [*a]\n", 2, 10),
    "a tag": Case("AD110", "version: 1\nname: !!python/object:os.system x\n", 2, 7),
    "a duplicate key": Case("AD111", TWO + "version: 1\nadapters: {}\n", 5, 1),
    "a duplicate adapter": Case(
        "AD111", "version: 1\nadapters:\n  a: {source: ./x}\n  a: {source: ./y}\n", 4, 3
    ),
    "a list as a key": Case("AD112", "version: 1\n? [a, b]\n: 1\n", 2, 3),
    "null as a key": Case("AD112", "version: 1\nx-a: {~: 1}\n", 2, 7),
    "a merge of text": Case("AD113", "version: 1\nbase:\n  <<: text\n", 3, 7),
    # schema
    "an unknown key": Case("AD120", "version: 1\nadaptors: {}\n", 2, 1, "adaptors"),
    "an unknown key of an adapter": Case(
        "AD120",
        "version: 1\nadapters:\n  tone: {source: ./x, sorce: ./y}\n",
        3,
        23,
        "adapters.tone.sorce",
    ),
    "a list for a mapping": Case("AD121", "version: 1\nadapters: [tone]\n", 2, 11, "adapters"),
    "a quoted number": Case(
        "AD121", 'version: 1\nrules: {max_active: "2"}\n', 2, 21, "rules.max_active"
    ),
    "yes for true": Case("AD121", "version: 1\nbase: {trust_remote_code: yes}\n", 2, 27),
    "a fraction of a whole number": Case("AD121", "version: 1\nrules: {max_active: 2.0}\n", 2, 21),
    "text for a list": Case("AD121", "version: 1\nbase: {aliases: acme/base}\n", 2, 17),
    "a list at the top": Case("AD121", "- version: 1\n", 1, 1),
    "no version": Case("AD122", "name: desk\n", 1, 1, "version"),
    "no source": Case("AD122", "version: 1\nadapters:\n  tone:\n    dtype: auto\n", 3, 3),
    "an empty source": Case("AD122", "version: 1\nadapters:\n  tone:\n    source:\n", 4, 12),
    "another dtype": Case("AD123", "version: 1\nbase: {dtype: fp16}\n", 2, 15, "base.dtype"),
    "another method": Case(
        "AD123", TWO + "version: 1\ncompositions:\n  m: {combine: add, of: {tone: 1}}\n", 6, 16
    ),
    "a name with a space": Case(
        "AD124", "version: 1\nadapters:\n  My Tone: {source: ./x}\n", 3, 3, "adapters.My Tone"
    ),
    "a name of two words": Case("AD124", "version: 1\nname: My Desk\n", 2, 7, "name"),
    "a short digest": Case(
        "AD125", "version: 1\nadapters:\n  a: {source: ./x, sha256: 'sha256:00'}\n", 3, 28
    ),
    "a size without unit": Case("AD125", "version: 1\npolicy: {max_adapter_bytes: 2000}\n", 2, 29),
    "no room for any": Case("AD125", "version: 1\nrules: {max_active: 0}\n", 2, 21),
    "a composition of nothing": Case("AD125", "version: 1\ncompositions: {m: {of: {}}}\n", 2, 24),
    "an infinite option": Case(
        "AD125", "version: 1\nbase: {quantization: {threshold: .inf}}\n", 2, 34
    ),
    "a bare repository": Case(
        "AD126", "version: 1\nadapters: {a: {source: acme/tone}}\n", 2, 24, "adapters.a.source"
    ),
    "a version to come": Case("AD127", "version: 2\n", 1, 10, "version"),
    "a version with a fraction": Case("AD127", "version: 1.0\n", 1, 10, "version"),
    # variables
    "an unset variable": Case(
        "AD130", 'version: 1\nadapters: {a: {source: "s3://${BUCKET}/a"}}\n', 2, 24
    ),
    "a variable in a name": Case("AD131", "version: 1\nname: ${USER}-desk\n", 2, 7),
    "a variable in a key": Case("AD131", 'version: 1\nadapters: {"${A}": {source: ./x}}\n', 2, 12),
    "a shell variable": Case(
        "AD132", "version: 1\nadapters: {a: {source: s3://$BUCKET/a}}\n", 2, 24
    ),
    "a secret variable": Case(
        "AD133", 'version: 1\nadapters: {a: {source: "https://h/${API_TOKEN}/a"}}\n', 2, 24
    ),
    # overlays
    "a missing parent": Case("AD140", "version: 1\nextends: nowhere.yaml\n", 2, 10, "extends"),
    "extending itself": Case("AD141", "version: 1\nextends: adapters.yaml\n", 2, 10, "extends"),
    "extending a list": Case("AD142", "version: 1\nextends: [a.yaml]\n", 2, 10, "extends"),
    "extending a URL": Case("AD142", "version: 1\nextends: s3://b/a.yaml\n", 2, 10, "extends"),
    # secrets
    "a token in a comment": Case("AD150", "version: 1\n# hf_" + "a" * 34 + "\n", 2, 3),
    "a password in a URL": Case(
        "AD150", "version: 1\nadapters: {a: {source: 'https://me:hunter22@h/a'}}\n", 2, 33
    ),
    "a credential option": Case(
        "AD151", "version: 1\nbase: {storage_options: {secret: hunter22}}\n", 2, 26
    ),
    # cross references
    "one name for two": Case(
        "AD170", TWO + "version: 1\ncompositions:\n  tone: {of: {billing: 1}}\n", 6, 3
    ),
    "an unknown member": Case(
        "AD171", TWO + "version: 1\ncompositions:\n  m: {of: {tune: 1}}\n", 6, 12
    ),
    "an unknown name active": Case("AD171", TWO + "version: 1\nactive: [tone, bill]\n", 5, 16),
    "an unknown name in a rule": Case(
        "AD171", TWO + "version: 1\nrules: {requires: {tone: [bill]}}\n", 5, 27
    ),
    "ties of a composition": Case(
        "AD172",
        TWO
        + "version: 1\ncompositions:\n  s: {of: {tone: 1}}\n"
        + "  m: {combine: ties, density: 0.5, of: {s: 1}}\n",
        7,
        41,
    ),
    "a circle": Case(
        "AD173", "version: 1\ncompositions:\n  a: {of: {b: 1}}\n  b: {of: {a: 1}}\n", 3, 3
    ),
    "a density unused": Case(
        "AD174", TWO + "version: 1\ncompositions:\n  m: {of: {tone: 1}, density: 0.5}\n", 6, 22
    ),
    "a seed missing": Case(
        "AD175",
        TWO
        + "version: 1\ncompositions:\n  m: {combine: dare_linear, of: {tone: 1}, density: 0.5}\n",
        6,
        3,
    ),
    "a weight of zero": Case(
        "AD176", TWO + "version: 1\ncompositions:\n  m: {of: {tone: 0}}\n", 6, 18
    ),
    "a weight that is infinite": Case(
        "AD176", TWO + "version: 1\ncompositions:\n  m: {of: {tone: .inf}}\n", 6, 18
    ),
    "weights that cancel out": Case(
        "AD176",
        TWO + "version: 1\ncompositions:\n  s: {of: {tone: 0.5}}\n  m: {of: {s: -2, tone: 1}}\n",
        7,
        11,
    ),
    "an undeclared registry": Case(
        "AD177",
        "version: 1\nadapters: {a: {source: registry://team/a@1}}\nregistries: {t: ./r}\n",
        2,
        24,
    ),
    "a base from a registry": Case(
        "AD178", "version: 1\nregistries: {t: ./r}\nbase: {model: registry://t/a@1}\n", 3, 15
    ),
    "a remote one that is mutable": Case(
        "AD179", "version: 1\nadapters: {a: {source: hf://a/b, mutable: true}}\n", 2, 43
    ),
    "a digest of what changes": Case(
        "AD180",
        f"version: 1\nadapters: {{a: {{source: ./a, mutable: true, sha256: '{DIGEST}'}}}}\n",
        2,
        38,
    ),
    "a policy against what changes": Case(
        "AD180",
        "version: 1\nadapters: {a: {source: ./a, mutable: true}}\npolicy: {require_digest: true}\n",
        2,
        38,
    ),
    "no device": Case("AD181", "version: 1\nbase: {device_map: gpu0}\n", 2, 20),
    "no device for a module": Case(
        "AD181", "version: 1\nbase: {device_map: {lm_head: -1}}\n", 2, 30
    ),
    "active twice": Case("AD183", TWO + "version: 1\nactive: [tone, tone]\n", 5, 16),
    "a mirror without slash": Case(
        "AD184", "version: 1\nmirrors: {'hf://': 's3://mirror/hf'}\n", 2, 20
    ),
    # rules
    "a group of one": Case("AD801", TWO + "version: 1\nrules: {exclusive: [[tone]]}\n", 5, 21),
    "a rule against itself": Case(
        "AD802",
        TWO + "version: 1\nrules: {exclusive: [[tone, billing]], requires: {tone: [billing]}}\n",
        5,
        50,
    ),
    "requiring itself": Case(
        "AD802", TWO + "version: 1\nrules: {requires: {tone: [tone]}}\n", 5, 20
    ),
    "a rule on a composition": Case(
        "AD803",
        TWO
        + "version: 1\ncompositions: {m: {of: {tone: 1}}}\nrules: {exclusive: [[m, billing]]}\n",
        6,
        22,
    ),
    "exclusive together": Case(
        "AD804",
        TWO + "version: 1\nrules: {exclusive: [[tone, billing]]}\nactive: [tone, billing]\n",
        6,
        9,
    ),
    "exclusive within a composition": Case(
        "AD804",
        TWO
        + "version: 1\nrules: {exclusive: [[tone, billing]]}\n"
        + "compositions: {m: {of: {tone: 1, billing: 1}}}\n",
        6,
        16,
    ),
    "without what it requires": Case(
        "AD805", TWO + "version: 1\nrules: {requires: {tone: [billing]}}\nactive: tone\n", 6, 9
    ),
    "too many": Case(
        "AD806", TWO + "version: 1\nrules: {max_active: 1}\nactive: [tone, billing]\n", 6, 9
    ),
}

ELSEWHERE = {
    "AD101": "test_manifest",
    "AD102": "test_document",
    "AD103": "test_document",
    "AD143": "test_overlay",
    "AD160": "test_edit",
    "AD182": "test_semantics",
    "AD199": "test_bounds",
    "AD807": "test_rules",
    "AD808": "test_rules",
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_mistake_is_reported_at_its_line_and_column(case: Case, desk: Desk) -> None:
    found = desk.findings(case.text, {"API_TOKEN": "sekret"})
    wanted = [
        finding
        for finding in found
        if (finding.code, finding.where.line, finding.where.column)
        == (case.code, case.line, case.column)
    ]
    assert wanted, [(f.code, f.where.line, f.where.column, f.message) for f in found]
    finding = wanted[0]
    assert finding.where.file == str(desk.folder / "adapters.yaml")
    assert not finding.message.endswith(".")
    assert finding.hint
    if case.path:
        assert finding.where.dotted == case.path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_mistake_is_reported_once(case: Case, desk: Desk) -> None:
    assert {f.code for f in desk.findings(case.text)} <= {case.code}


def test_every_code_of_the_language_has_a_case() -> None:
    ours = {id for id in all_codes() if id.startswith(("AD1", "AD80"))}
    assert ours == {case.code for case in CASES.values()} | set(ELSEWHERE)


def test_all_mistakes_are_reported_at_once_and_in_order(desk: Desk) -> None:
    text = (
        "version: 1\n"
        "name: My Desk\n"
        "adapters:\n"
        "  tone: {sorce: ./tone}\n"
        "  tone: {source: ./tone}\n"
        "  legal:\n"
        "compositions:\n"
        "  mix: {of: {tune: 1, legal: 0}, density: 0.5}\n"
        "rules: {max_active: two}\n"
        "active: [mix, nobody]\n"
    )
    found = desk.findings(text)
    assert [(f.code, f.where.line) for f in found] == [
        ("AD124", 2),
        ("AD120", 4),
        ("AD111", 5),
        ("AD122", 6),
        ("AD171", 8),
        ("AD176", 8),
        ("AD174", 8),
        ("AD121", 9),
        ("AD171", 10),
    ]


def test_the_text_of_an_error_has_every_finding(desk: Desk) -> None:
    with pytest.raises(ManifestError) as caught:
        desk.read("version: 2\nname: My Desk\n")
    assert "AD127" in str(caught.value)
    assert "AD124" in str(caught.value)
    assert caught.value.code == "AD127"
