"""Checks of references, and of fields that belong together."""

from __future__ import annotations

import pytest
from adapterdock.manifests.findings.finding import Severity
from support.manifest_files import HEADER, Desk

THREE = HEADER + (
    "adapters:\n  billing: {source: ./billing}\n  tone: {source: ./tone}\n"
    "  legal: {source: ./legal}\n"
)


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("sum", ""),
        ("linear", ""),
        ("cat", ""),
        ("svd", ""),
        ("ties", "density"),
        ("ties_svd", "density"),
        ("dare_linear", "density seed"),
        ("dare_ties", "density seed"),
        ("dare_linear_svd", "density seed"),
        ("dare_ties_svd", "density seed"),
        ("magnitude_prune", "density"),
        ("magnitude_prune_svd", "density"),
    ],
)
def test_each_method_of_combining_accepts_only_its_own_fields(
    method: str, needs: str, desk: Desk
) -> None:
    takes = set(needs.split())
    if "ties" in method:
        takes.add("majority_sign_method")
    if "svd" in method:
        takes |= {"svd_rank", "svd_clamp"}
    values = {"density": "0.5", "seed": "7", "majority_sign_method": "total", "svd_rank": "8"}
    values["svd_clamp"] = "0.99"

    def text(fields: set[str]) -> str:
        given = "".join(f", {name}: {values[name]}" for name in sorted(fields))
        return THREE + f"compositions: {{m: {{combine: {method}, of: {{tone: 1}}{given}}}}}\n"

    desk.read(text(takes))
    for name in set(values) - takes:
        found = desk.findings(text(takes | {name}))
        assert [(f.code, f.where.dotted) for f in found] == [("AD174", f"compositions.m.{name}")]
    for name in needs.split():
        found = desk.findings(text(takes - {name}))
        assert [f.code for f in found] == ["AD175"]
        assert name in found[0].message


@pytest.mark.parametrize("value", ["0", "-0.1", "1.5", ".nan"])
def test_a_density_is_above_0_and_at_most_1(value: str, desk: Desk) -> None:
    text = THREE + f"compositions: {{m: {{combine: ties, of: {{tone: 1}}, density: {value}}}}}\n"
    assert [f.code for f in desk.findings(text)] == ["AD125"]


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize(
    ("keys", "place", "code"),
    [
        ("base: {{quantization: {{a: [{}]}}}}", "base.quantization.a[0]", "AD125"),
        ("base: {{model: ./b, storage_options: {{a: {}}}}}", "base.storage_options.a", "AD125"),
        ("adapters: {{a: {{config: {{r: {}}}}}}}", "adapters.a.config.r", "AD125"),
        ("compositions: {{m: {{of: {{a: {}}}}}}}", "compositions.m.of.a", "AD176"),
        (
            "compositions: {{m: {{combine: svd, of: {{a: 1}}, svd_clamp: {}}}}}",
            "compositions.m.svd_clamp",
            "AD125",
        ),
    ],
)
def test_no_number_of_a_manifest_is_without_a_form_in_json(
    keys: str, place: str, code: str, number: str, desk: Desk
) -> None:
    rest = {"base": "{}", "adapters": "{a: {source: ./a}}"}
    rest.pop(keys.partition(":")[0], None)
    text = "".join(f"{key}: {value}\n" for key, value in rest.items())
    found = desk.findings(f"version: 1\n{text}{keys.format(number)}\n")
    assert (code, place) in [(one.code, one.where.dotted) for one in found]


def test_only_sums_can_be_nested(desk: Desk) -> None:
    sums = "compositions:\n  s: {of: {tone: 1}}\n  t: {of: {s: 0.5, legal: -1}}\n"
    desk.read(THREE + sums)
    found = desk.findings(THREE + sums + "  u: {combine: linear, of: {t: 1}}\n")
    assert [f.code for f in found] == ["AD172"]
    ties = "compositions:\n  s: {combine: ties, density: 1, of: {tone: 1}}\n  t: {of: {s: 1}}\n"
    assert [f.code for f in desk.findings(THREE + ties)] == ["AD172"]


def test_a_cycle_is_reported_once_with_all_its_members(desk: Desk) -> None:
    text = THREE + "compositions:\n  a: {of: {b: 1}}\n  b: {of: {c: 1}}\n  c: {of: {a: 1}}\n"
    found = desk.findings(text)
    assert [f.code for f in found] == ["AD173"]
    assert "a > b > c > a" in found[0].message


def test_names_are_compared_in_full(desk: Desk) -> None:
    text = HEADER + "adapters: {q_proj: {source: ./a}, q.proj: {source: ./b}, q: {source: ./c}}\n"
    assert list(desk.read(text + "active: q\n").manifest.adapters) == ["q_proj", "q.proj", "q"]
    finding = desk.findings(text + "active: q_pro\n")[0]
    assert (finding.code, finding.hint) == ("AD171", "Did you mean 'q_proj'?")


def test_names_are_compared_with_their_case(desk: Desk) -> None:
    text = HEADER + "adapters: {Billing-EU.v2: {source: ./a}, tone: {source: ./b}}\n"
    mixed = "compositions: {Mix: {of: {Billing-EU.v2: 1, tone: 0.5}}}\n"
    assert desk.read(text + mixed + "active: Mix\n").manifest.active == "Mix"
    finding = desk.findings(text + "active: Tone\n")[0]
    assert (finding.code, finding.hint) == ("AD171", "Did you mean 'tone'?")


def test_what_a_composition_may_use_is_listed_without_itself(desk: Desk) -> None:
    text = "version: 1\nadapters: {tone: {source: ./t}}\ncompositions: {m: {of: {tune: 1}}}\n"
    (finding,) = desk.findings(text)
    assert (finding.code, finding.expected) == ("AD171", "tone")
    (finding,) = desk.findings(text.replace("tune", "tone") + "active: mm\n")
    assert (finding.code, finding.expected) == ("AD171", "tone, m")


@pytest.mark.parametrize("name", ["X-tone", "-tone", "_tone", "__base__", "Tone!", "1a"])
def test_an_invalid_name_is_refused(name: str, desk: Desk) -> None:
    found = desk.findings(HEADER + f"compositions: {{{name}: {{of: {{a: 1}}}}}}\n")
    assert found[0].code == "AD124"


@pytest.mark.parametrize(
    "text",
    [
        "adapters: {tone: {source: ./a}, Tone: {source: ./b}}\n",
        "adapters: {tone: {source: ./a}}\ncompositions: {TONE: {of: {tone: 1}}}\n",
        "adapters: {a: {source: ./a}}\ncompositions: {m: {of: {a: 1}}, M: {of: {a: 0.5}}}\n",
    ],
)
def test_two_names_that_differ_only_in_case_are_an_error(text: str, desk: Desk) -> None:
    (finding,) = desk.findings(HEADER + text)
    assert finding.code == "AD379" and finding.where.line is not None


def test_the_same_adapter_under_two_names_is_a_warning(desk: Desk) -> None:
    read = desk.read(HEADER + "adapters: {a: {source: ./x}, b: {source: ./x}}\n")
    assert [(f.code, f.severity) for f in read.warnings] == [("AD182", Severity.WARNING)]
    assert read.warnings[0].where.dotted == "adapters.b.source"
    text = HEADER + "adapters: {a: {source: ./x}, b: {source: ./x, dtype: float32}}\n"
    assert desk.read(text).warnings == ()


@pytest.mark.parametrize(
    "devices",
    ["auto", "cpu", "cuda", "cuda:0", "mps", "sequential", '{"": 0}', "{a.b: cuda:1, c: disk}"],
)
def test_devices_of_transformers_are_accepted(devices: str, desk: Desk) -> None:
    desk.read(HEADER + f"base: {{device_map: {devices}}}\n")


@pytest.mark.parametrize(
    "devices", ["gpu", "cuda0", "0", "disk", "'cuda:'", "{}", '{"": gpu}', '{"": "0"}', '{"": -1}']
)
def test_unknown_devices_are_refused(devices: str, desk: Desk) -> None:
    assert [f.code for f in desk.findings(HEADER + f"base: {{device_map: {devices}}}\n")] == [
        "AD181"
    ]


@pytest.mark.parametrize(
    "mirror",
    [
        "'hf://': 's3://m/hf/'",
        "'hf://acme': 's3://m/acme'",
        "'s3://b/': /mnt/b/",
        "'hf://': './m/'",
    ],
)
def test_valid_mirrors_are_accepted(mirror: str, desk: Desk) -> None:
    desk.read(HEADER + f"mirrors: {{{mirror}}}\n")


@pytest.mark.parametrize(
    "mirror",
    [
        "'hf://': 's3://m/hf'",
        "'hf://acme': 's3://m/acme/'",
        "'hf://': nowhere/",
        "'hf://': 'registry://a/b@1/'",
        "'registry://t/': 's3://b/'",
        "'oci://host/': 's3://b/'",
        "'hf://acme': 'oci://host/acme'",
        "'hf://acme': 'oci-archive:acme.tar'",
    ],
)
def test_mirrors_that_would_make_wrong_addresses_are_refused(mirror: str, desk: Desk) -> None:
    assert [f.code for f in desk.findings(HEADER + f"mirrors: {{{mirror}}}\n")] == ["AD184"]


@pytest.mark.parametrize("aliases", ["[a, a]", "['']", "[' a']"])
def test_aliases_are_text_without_duplicates(aliases: str, desk: Desk) -> None:
    assert len(desk.findings(HEADER + f"base: {{aliases: {aliases}}}\n")) == 1


def test_references_to_an_invalid_adapter_are_not_errors(desk: Desk) -> None:
    text = HEADER + (
        "adapters: {tone: {source: acme/tone}}\ncompositions: {m: {of: {tone: 1}}}\n"
        "rules: {requires: {tone: [tune]}}\nactive: m\n"
    )
    assert [(f.code, f.where.line) for f in desk.findings(text)] == [("AD126", 2), ("AD171", 4)]


def test_nothing_is_reported_that_depends_on_an_invalid_field(desk: Desk) -> None:
    text = THREE + (
        "compositions: {m: {combine: tise, of: {tone: 1}, density: 0.5}, n: {of: {m: 1}}}\n"
        "registries: {team: team}\n"
    )
    assert [(f.code, f.where.line) for f in desk.findings(text)] == [("AD123", 6), ("AD126", 7)]
    text += "active: [legal, nobody]\n"
    assert "AD171" in [f.code for f in desk.findings(text)]


def test_a_registry_with_an_error_of_its_own_is_still_declared(desk: Desk) -> None:
    text = HEADER + "adapters: {a: {source: registry://t/a@^1}}\nregistries: {t: nowhere}\n"
    assert [(f.code, f.where.line) for f in desk.findings(text)] == [("AD126", 3)]


def test_an_empty_section_counts_as_missing(desk: Desk) -> None:
    manifest = desk.read(HEADER + "base:\nadapters:\nrules: {}\nactive:\n").manifest
    assert manifest.base.model is None
    assert manifest.adapters == {}


def test_a_manifest_without_registries_uses_those_that_are_configured(desk: Desk) -> None:
    text = HEADER + "adapters: {a: {source: registry://team/a@^1}}\n"
    assert desk.read(text).manifest.registries == {}
    found = desk.findings(text + "registries: {taem: ./r}\n")
    assert [(f.code, f.hint) for f in found] == [("AD177", "Did you mean 'taem'?")]
    assert found[0].expected == "taem"


@pytest.mark.parametrize(
    ("registry", "codes"),
    [
        ("./registry", []),
        ("oci-archive:registry.oci.tar", []),
        ("registry://other/a@1", ["AD178"]),
        ("oci://host/registry", ["AD178"]),
    ],
)
def test_a_registry_is_a_folder_or_an_archive(registry: str, codes: list[str], desk: Desk) -> None:
    text = HEADER + f"registries: {{t: '{registry}'}}\n"
    if not codes:
        assert str(desk.read(text).manifest.registries["t"]) == registry
        return
    assert [finding.code for finding in desk.findings(text)] == codes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("base: ../x\n", "Write a mapping: base: {model: ../x}."),
        ('base: "../x"\n', 'Write a mapping: base: {model: "../x"}.'),
        ("adapters: {tone: ../x}\n", "Write a mapping: tone: {source: ../x}."),
        ("adapters: [a]\n", "Write a mapping: adapters: {tone: {source: ./folder}}."),
        ("registries: ./r\n", "Write a mapping: registries: {team: ./r}."),
        ("compositions: {x: {of: [a, b]}}\n", "Write a mapping: of: {a: 1.0, b: 1.0}."),
        ("compositions: {x: {of: a}}\n", "Write a mapping: of: {a: 1.0}."),
        ("compositions: {x: {of: []}}\n", "Write a mapping: of: {NAME: 1.0}."),
        ("compositions: {both: [a, b]}\n", "Write a mapping: both: {of: {NAME: 1.0}}, with"),
        ("rules: x\n", "Write its keys below it: exclusive, requires, max_active"),
        ("name: {a: b}\n", "Write a value of the expected type."),
        ('rules: {max_active: "2"}\n', "Remove the quotes."),
        (
            "adapters: {a: {source: https://hf.co/org/name/tree/v1}}\n",
            "Write hf://org/name@v1.",
        ),
    ],
)
def test_the_hint_of_a_wrong_value_is_about_that_value(desk: Desk, text: str, hint: str) -> None:
    finding = desk.findings(HEADER + text)[0]
    assert str(finding.hint).startswith(hint)
    assert ("quotes" in str(finding.hint)) == ('"2"' in text)
