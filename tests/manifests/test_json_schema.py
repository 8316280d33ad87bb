"""The JSON Schema is current, and accepts what the language accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.json_schema import json_schema, main, rendered
from adapterdock.manifests.reading.document import read_document
from adapterdock.manifests.schema_file import SCHEMA_ADDRESS, SCHEMA_FILE
from jsonschema import Draft202012Validator
from support.manifest_files import HEADER, Desk

EXAMPLES = Path(adapterdock.__file__).parent / "manifests" / "examples"
VALIDATOR: Any = Draft202012Validator(json_schema())


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(read_document(text.encode()).data)


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == rendered()
    assert main(["--check"]) == 0


def test_a_stale_schema_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapterdock.manifests.json_schema.SCHEMA_FILE", tmp_path / "schema.json")
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json_schema()


def test_the_schema_has_an_address_in_the_repository() -> None:
    project = (Path(adapterdock.__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
    source = re.search(r'^Source = "https://github.com/(\S+)"', project, re.MULTILINE)
    assert source is not None
    address = f"https://raw.githubusercontent.com/{source[1]}/main/manifests/{SCHEMA_FILE.name}"
    assert json_schema()["$id"] == SCHEMA_ADDRESS == address


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_accepted(path: Path) -> None:
    assert accepts(path.read_text(encoding="utf-8"))


GOOD = [
    "base:\n",
    "base: {dtype: '${DTYPE:-auto}', model: '${MODEL}', device_map: {'': 0}}\n",
    "adapters: {a: {source: '${A}', dtype: '${D}'}, x-note: 5}\n",
    "adapters: {a: {source: ./a, owner: no, licence: 1.0, tags: [2.10, on], x-why: [1]}}\n",
    "adapters: {a: {source: ./a}}\ncompositions: {m: {of: {a: 1, x-n: t}}}\nactive: [m, a]\n",
    "adapters: {a: {source: ./a}}\ncompositions: {m: {of: {a: {'*.mlp.*': 0.1, '*': 1}}}}\n",
    "mirrors: {'hf://': 's3://m/', x-by: {a: 1}}\nregistries: {t: './r', x-r: 1}\n",
    "adapters: {a: {config: {peft_type: LORA, r: 2}, source: null, trainable: true, seed: 7}}\n",
    "base: {quantization: {a: [1, null]}, storage_options: {a: {b: 1}}}\nname: null\n",
]
BAD = [
    *("nonsense: 1\n", "adapters: {a: {}}\n", "adapters: {A B: {source: ./a}}\n"),
    *("adapters: {a: {source: ./a, sorce: ./b}}\n", "base: {dtype: fp16}\n"),
    *("base: {trust_remote_code: 'yes'}\n", "rules: {max_active: 0}\n"),
    *("compositions: {m: {of: {a: {}}}}\n", "compositions: {m: {of: {a: {'*': one}}}}\n"),
    *("compositions: {m: {of: {a: one}}}\n", "compositions: {m: {combine: add, of: {a: 1}}}\n"),
    *("adapters: {a: {config: {}, source: ./a, trainable: true}}\n", "adapters: {a: {seed: 1}}\n"),
    *("adapters: {a: {config: {peft_type: LORA}}}\n", "adapters: {a: {source: null}}\n"),
    *("policy: {max_adapter_bytes: 2 GB of it}\n", "mirrors: {hf: s3://m/}\n"),
]


@pytest.mark.parametrize("text", GOOD)
def test_valid_manifests_are_accepted_by_the_schema(text: str, desk: Desk) -> None:
    desk.read(HEADER + text, {"MODEL": "hf://a/b", "A": "./a", "D": "auto"})
    assert accepts(HEADER + text)


@pytest.mark.parametrize("text", BAD)
def test_the_schema_refuses_what_the_language_refuses(text: str, desk: Desk) -> None:
    desk.findings(HEADER + text)
    assert not accepts(HEADER + text)


def test_an_overlay_may_omit_and_remove_keys(desk: Desk) -> None:
    desk.write(
        HEADER + "adapters: {a: {source: ./a}, b: {source: ./b}}\nrules: {max_active: 2}\n",
        "b.yaml",
    )
    text = (
        "extends: b.yaml\nadapters: {a: {dtype: float32}, b: null}\nrules: {max_active: null}\n"
        "compositions: {m: {of: {a: 1}, density: null}}\n"
    )
    desk.read(text)
    assert accepts(text)
    assert not accepts("extends: b.yaml\nadapters: {a: {dtyp: float32}}\n")
    assert not accepts("adapters: {a: {source: ./a}}\n")


def test_every_key_has_a_description() -> None:
    for name, definition in json_schema()["$defs"].items():
        for key, schema in definition.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{key}"


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of a schema, with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, inner in node.items():
            yield from nodes(inner, f"{path}/{key}")
    elif isinstance(node, list):
        for inner in node:
            yield from nodes(inner, path)


def test_every_key_has_a_text_that_editors_show() -> None:
    schema = json_schema()
    without = [
        f"{path}/{key}"
        for path, node in nodes(schema)
        for key, inner in node.get("properties", {}).items()
        if not inner.get("description") and not path.endswith(("/if", "/then", "/else"))
    ]
    assert without == []
    assert schema["$id"].startswith("https://") and schema["$id"].endswith("manifests/schema.json")


def test_editors_insert_no_null_and_show_no_title_for_each_form_of_a_value() -> None:
    found: list[str] = []
    schema = json_schema()
    for path, node in nodes(schema):
        if isinstance(node.get("title"), str) or node.get("default", "") is None:
            found.append(path)
        if "``" in str(node.get("description", "")):
            found.append(f"{path}: {node['description']}")
    assert found == []
    assert schema["$defs"]["Base"]["properties"]["dtype"]["default"] == "auto"  # others stay
    assert schema["$defs"]["Adapter"]["properties"]["lazy"]["default"] is False


def test_an_adapter_without_keys_is_one_complaint_about_its_source() -> None:
    data = read_document((HEADER + "adapters: {a: {dtype: auto}}\n").encode()).data
    (error,) = VALIDATOR.iter_errors(data)
    while error.context:
        error = error.context[0]
    assert error.message == "'source' is a required property"
