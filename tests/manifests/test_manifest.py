"""Reading a manifest: the complete example, overrides, data in memory, policies, and speed."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.language.rules import flatten
from adapterdock.manifests.language.schema import Manifest, parse_bytes
from adapterdock.manifests.manifest import read_manifest, read_policy
from adapterdock.manifests.reading.conform import Shape, shape_of
from adapterdock.manifests.reading.document import read_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.manifest_files import DIGEST, HEADER, Desk

EXAMPLE = Path(adapterdock.__file__).parent / "manifests" / "examples" / "support-desk.yaml"


def test_the_complete_example_is_valid() -> None:
    read = read_manifest(EXAMPLE, environ={})
    manifest = read.manifest
    assert read.warnings == ()
    assert manifest.name == "support-desk"
    assert manifest.base.model is not None
    assert manifest.base.model.is_commit
    assert manifest.base.fingerprint is not None
    assert manifest.base.fingerprint.weights is not None
    assert list(manifest.adapters) == ["billing", "tone", "legal", "refunds", "draft"]
    assert manifest.adapters["tone"].source.path == "checkpoint-1000"
    assert manifest.adapters["tone"].trainable
    assert manifest.adapters["billing"].storage_options == {}
    assert str(manifest.adapters["refunds"].source) == "registry://team/refunds@^2.1"
    assert manifest.compositions["refund-mix"].seed == 7
    assert flatten(manifest, "formal-billing") == {"billing": 1.0, "tone": 0.4}
    assert manifest.rules.exclusive == (("billing", "legal"),)
    assert parse_bytes(str(manifest.policy.max_adapter_bytes)) == 2 << 30
    assert manifest.active == "formal-billing"
    assert read.extras == {"x-notes": {"any": "thing"}}
    assert read.directory == EXAMPLE.parent


def keys_of(shape: Shape, data: Any, path: str = "") -> Iterator[tuple[str, str, bool]]:
    """Each key of the language: the model it is in, its name, and whether ``data`` has it."""
    if shape.values or shape.items:
        inner = data.values() if isinstance(data, Mapping) else data
        for one in list(inner) if isinstance(inner, Collection) and inner else [None]:
            yield from keys_of(shape.values or shape.items or Shape(), one, path)
    for key, below in shape.fields.items():
        has = isinstance(data, Mapping) and key in data
        yield path, key, has
        yield from keys_of(below, data[key] if has else None, f"{path}.{key}")


def keys_missing_in(text: str) -> set[tuple[str, str]]:
    """The keys of the language that neither the manifest in ``text`` nor a comment in it has.

    A comment counts for a key if it is written there as a key.
    """
    data = read_document(text.encode()).data
    comments = "\n".join(re.findall(r"(?:^|\s)#(.*)", text, re.MULTILINE))
    found = {(path, key) for path, key, has in keys_of(shape_of(Manifest), data) if has}
    wanted = {(path, key) for path, key, _ in keys_of(shape_of(Manifest), data)}
    wanted.add(("", "extends"))
    return {
        (path, key)
        for path, key in wanted - found
        if re.search(rf"(?:^ *|[{{,] *){key}: ", comments, re.MULTILINE) is None
    }


def test_the_complete_example_has_every_key_of_the_language() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert keys_missing_in(text) == set()
    assert keys_missing_in(text.replace("residency:", "x-residency:")) == {("", "residency")}
    assert keys_missing_in(text.replace("# extends:", "#")) == {("", "extends")}


def test_text_is_read_as_text_where_text_is_expected(desk: Desk) -> None:
    text = HEADER + (
        "description: 2.10\nadapters:\n  a:\n    source: ./a\n    owner: no\n    licence: 1.0\n"
        "    tags: [on, 2024-01-01, 0o10, true, 1_000, 12:30]\n"
    )
    manifest = desk.read(text).manifest
    assert manifest.description == "2.10"
    adapter = manifest.adapters["a"]
    assert (adapter.owner, adapter.licence) == ("no", "1.0")
    assert adapter.tags == ("on", "2024-01-01", "0o10", "true", "1_000", "12:30")


def test_mappings_that_are_passed_on_are_read_by_yaml_1_2(desk: Desk) -> None:
    text = HEADER + (
        "base:\n  quantization: {load_in_4bit: true, type: nf4, on: no, n: 2.10, d: 2024-01-01,"
        " oct: 0o10, none: ~, s: '1', list: [1, {a: 1.5}]}\n"
    )
    assert desk.read(text).manifest.base.quantization == {
        "load_in_4bit": True,
        "type": "nf4",
        "on": "no",
        "n": 2.1,
        "d": "2024-01-01",
        "oct": 8,
        "none": None,
        "s": "1",
        "list": [1, {"a": 1.5}],
    }


def test_notes_are_kept_from_everywhere_and_never_read(desk: Desk) -> None:
    text = HEADER + (
        "x-defaults: &defaults {dtype: float32}\n"
        "base: {x-why: [1]}\n"
        "adapters:\n  x-all: 5\n  a: {<<: *defaults, source: ./a, x-who: me}\n"
        "compositions: {m: {of: {a: 1, x-b: nothing}, x-c: 1}}\n"
        "rules: {requires: {x-d: 1}, x-e: 1}\nmirrors: {x-f: 1}\nregistries: {x-g: 1}\n"
        "policy: {x-h: 1}\n"
    )
    read = desk.read(text)
    assert read.manifest.adapters["a"].dtype == "float32"
    assert set(read.extras) == {
        *("x-defaults", "base.x-why", "adapters.x-all", "adapters.a.x-who"),
        *("compositions.m.of.x-b", "compositions.m.x-c", "rules.requires.x-d", "rules.x-e"),
        *("mirrors.x-f", "registries.x-g", "policy.x-h"),
    }


def test_overrides_apply_to_one_run_and_are_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = HEADER + "base: {model: hf://a/b, dtype: auto, aliases: [x]}\n"
    read = desk.read(text, model="hf://c/d@v1", dtype="float32")
    assert (str(read.manifest.base.model), read.manifest.base.dtype) == ("hf://c/d@v1", "float32")
    assert read.manifest.base.aliases == ("x",)
    assert read.overrides == {"model": "hf://c/d@v1", "dtype": "float32"}
    assert read.where(("base", "model")).file == "--model"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    read = desk.read(HEADER, model="./m")
    assert str(read.manifest.base.model) == str(tmp_path / "here" / "m")
    assert desk.read(HEADER, model="./$x").manifest.base.model is not None
    read = desk.read(HEADER, model="oci-archive:m.tar:base")
    assert str(read.manifest.base.model) == f"oci-archive:{tmp_path}/here/m.tar:base"


def test_a_bad_override_names_its_option(desk: Desk) -> None:
    found = desk.findings(HEADER, model="acme/base", dtype="fp16")
    assert [(f.code, f.where.file) for f in found] == [("AD126", "--model"), ("AD123", "--dtype")]


def test_a_mapping_in_memory_is_read_like_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = {
        "version": 1,
        "base": {"model": "hf://${ORG}/b", "device_map": {"": 0}, "aliases": ["x"]},
        "adapters": {"a": {"source": "./a", "tags": ("t",), "x-n": {1, 2}}},
        "compositions": {"m": {"of": {"a": 2}}},
    }
    before = copy.deepcopy(data)
    read = read_manifest(data, environ={"ORG": "acme"})
    assert data == before
    assert str(read.manifest.base.model) == "hf://acme/b"
    assert read.manifest.compositions["m"].of == {"a": 2.0}
    assert read.directory == tmp_path
    assert (read.file, read.files) == (None, ())
    assert str(read.where(("adapters", "a"))) == "adapters.a"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, "AD122"),
        ({"version": "1"}, "AD127"),
        ({"version": True}, "AD127"),
        ({"version": 1, "rules": {"max_active": "2"}}, "AD121"),
        ({"version": 1, "name": 5}, "AD121"),
        ({"version": 1, "adapters": {"a": {"source": Path("a")}}}, "AD126"),
        ({"version": 1, "adapters": {1: {"source": "./a"}}}, "AD112"),
        ({"version": 1, "nonsense": object()}, "AD120"),
        ({"version": 1, "base": {"trust_remote_code": 1}}, "AD121"),
        ({"version": 1, "base": {"device_map": {"": 1.5}}}, "AD121"),
        ({"version": 1, "active": ["a b"]}, "AD124"),
    ],
)
def test_mistakes_in_memory_give_the_same_errors(data: Any, code: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(data, environ={})
    assert [f.code for f in caught.value.findings] == [code]


def test_a_mapping_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {"version": 1}
    data["x-me"] = [data]
    with pytest.raises(ManifestError) as caught:
        read_manifest(data)
    assert caught.value.code == "AD107"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, "a\0b", HEADER + "name: desk\n"):
        with pytest.raises(ManifestError) as caught:
            read_manifest(path)
        assert caught.value.code == "AD101"
    assert "not a path" in str(caught.value)


def test_a_manifest_cannot_be_changed_and_can_be_pickled() -> None:
    read = read_manifest(EXAMPLE, environ={})
    manifest = read.manifest
    with pytest.raises(TypeError, match="frozen"):
        manifest.adapters["new"] = manifest.adapters["tone"]  # type: ignore[index]
    with pytest.raises(TypeError, match="frozen"):
        manifest.rules.requires.clear()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="frozen"):
        manifest.base.dtype = "auto"
    for again in (pickle.loads(pickle.dumps(read)), copy.deepcopy(read)):
        assert again.manifest == manifest
        assert again.root == read.root
    assert hash(manifest) == hash(read_manifest(EXAMPLE, environ={}).manifest)
    assert '"density":0.5' in manifest.model_dump_json()


def test_a_policy_file_has_the_policys_keys_at_its_top(desk: Desk) -> None:
    path = desk.write(
        "allow_sources: ['hf://acme/*']\nrequire_digest: true\nmax_adapter_bytes: 500MB\nx-by: me\n"
    )
    policy = read_policy(path)
    assert policy.allow_sources == ("hf://acme/*",)
    assert policy.require_digest
    assert policy.max_adapter_bytes == "500MB"


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("policy: {}\n", "AD120", 1),
        ("require_digest: yes\n", "AD121", 1),
        ("x-a: 1\nallow_sources: ['${HOME}/*']\n", "AD131", 2),
        ("# ghp_" + "a" * 36 + "\nrequire_digest: true\n", "AD150", 1),
        ("", "AD105", 1),
        ("require_digest: true\nrequire_digest: false\n", "AD111", 2),
    ],
)
def test_a_wrong_policy_file_is_refused(text: str, code: str, line: int, desk: Desk) -> None:
    with pytest.raises(ManifestError) as caught:
        read_policy(desk.write(text))
    assert [(f.code, f.where.line) for f in caught.value.findings] == [(code, line)]


def test_sizes_are_read_in_bytes() -> None:
    assert [parse_bytes(t) for t in ("10B", "10 B", "1.5KB", "1.5kB", "2GiB", "1TB")] == [
        *(10, 10, 1500, 1500, 2 << 30, 10**12)
    ]


KEYS = st.sampled_from(
    [
        *("version", "name", "base", "model", "adapters", "a", "b", "source", "compositions"),
        *("of", "rules", "exclusive", "requires", "policy", "active", "mirrors", "hf://"),
        *("registries", "extends", "x-n", "storage_options", "device_map", "", "dtype"),
        *("combine", "density", "seed"),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2),
    st.floats(),
    st.text(max_size=6),
    KEYS,
    st.sampled_from(
        ["./a", "hf://a/b", "s3://b/${X}", "${Y:-auto}", "ties", "registry://a/b@^1", "$"]
    ),
)
DATA: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=25,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, DATA, max_size=6), st.booleans())
def test_any_mapping_is_a_manifest_or_a_manifest_error(data: Any, versioned: bool) -> None:
    if versioned:
        data = {**data, "version": 1}
    try:
        read_manifest(data, environ={"X": "x"})
    except ManifestError as error:
        for finding in error.findings:
            assert finding.message
            str(finding)
            finding.as_dict()


def test_twenty_adapters_are_read_in_a_fraction_of_a_second(desk: Desk) -> None:
    text = HEADER + "base: {model: ./base}\nadapters:\n"
    for index in range(20):
        text += (
            f"  adapter-{index}:\n    source: hf://acme/lora-{index}@main/a\n"
            f"    sha256: {DIGEST}\n    owner: team\n    tags: [a, b]\n"
            "    storage_options: {endpoint_url: '${S3:-}'}\n"
        )
    text += "compositions: {m: {of: {adapter-1: 1.0, adapter-2: 0.5}}}\nactive: m\n"
    desk.read(text)
    times: list[float] = []
    for _ in range(5):
        start = time.process_time()
        desk.read(text)
        times.append(time.process_time() - start)
    assert min(times) < 0.03


def test_reading_imports_no_heavy_package() -> None:
    code = (
        "import sys; from adapterdock.manifests.manifest import read_manifest; "
        f"read_manifest({str(EXAMPLE)!r}, environ={{}}); "
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'huggingface_hub', 'fsspec', "
        "'safetensors', 'rich', 'typer', 'adapterdock.registry', 'adapterdock.loader'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_document_gives_plain_data_to_other_readers() -> None:
    document = read_document(EXAMPLE.read_bytes(), "example")
    assert document.data["rules"]["max_active"] == 2
    assert document.where(("rules", "max_active")).file == "example"
