"""The base that an adapter records, against the manifest's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.checks import recorded_base
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import BaseFacts
from support.builders import adapter_facts, base_facts, lora_config

HUB = Source.parse("hf://org/base@" + "a" * 40)
LOCAL = Source.parse("./models/base")


def check(name: Any, declared: Source | None = HUB, **more: Any) -> list[str]:
    config = lora_config(base_model_name_or_path=name, revision=more.pop("revision", None))
    return [f.code for f in recorded_base.check(config, Where(), declared=declared, **more)]


@pytest.mark.parametrize(
    ("name", "declared", "aliases"),
    [
        ("org/base", HUB, ()),
        ("Org/Base", HUB, ()),  # the Hub ignores case
        ("org/old-name", HUB, ("org/old-name",)),
        ("org/old-name", HUB, ("hf://org/old-name@main",)),
        ("/scratch/run7/base", HUB, ("/scratch/run7/base",)),
        ("/scratch/run7/base/", HUB, ("/scratch/run7/base",)),
        ("org/base", LOCAL, ("org/base",)),
        ("./models/base", LOCAL, ()),
        ("s3://bucket/base", Source.parse("s3://bucket/base"), ()),
        ("gpt2", Source.parse("hf://gpt2"), ()),
        ("org/base", None, ("org/base",)),  # a loaded model knows its own name
    ],
)
def test_the_same_base_under_any_of_its_names_passes(
    name: str, declared: Source | None, aliases: tuple[str, ...]
) -> None:
    assert check(name, declared, aliases=aliases) == []


@pytest.mark.parametrize(
    ("name", "declared", "aliases", "code"),
    [
        ("org/other", HUB, (), "AD360"),
        ("org/base-chat", HUB, (), "AD360"),  # a name is never compared as a part
        ("base", HUB, (), "AD360"),
        ("org/other", HUB, ("org/third",), "AD360"),
        ("org/other", LOCAL, ("org/base",), "AD360"),
        ("org/other", None, ("org/base",), "AD360"),
        ("/scratch/run7/base", HUB, (), "AD362"),
        ("../base", HUB, (), "AD362"),
        ("C:\\models\\base", HUB, (), "AD362"),
        (None, HUB, (), "AD363"),
        ("", HUB, (), "AD363"),
        ("org/base", LOCAL, (), "AD364"),
        ("org/base", None, (), "AD366"),
    ],
)
def test_another_base_is_found_under_its_code(
    name: str | None, declared: Source | None, aliases: tuple[str, ...], code: str
) -> None:
    assert check(name, declared, aliases=aliases) == [code]


def other(**fields: Any) -> BaseFacts:
    return dataclasses.replace(base_facts(**fields), source=None)


@pytest.mark.parametrize(
    "fields",
    [{"model_type": "mistral"}, {"hidden_size": 32}, {"num_hidden_layers": 4}],
)
@pytest.mark.parametrize("name", ["org/other", "/scratch/base"])
def test_a_recorded_base_that_resolves_to_another_shape_is_an_error(
    name: str, fields: dict[str, Any]
) -> None:
    assert check(name, base=base_facts(), recorded=other(**fields)) == ["AD361"]


def test_a_recorded_folder_that_resolves_to_the_same_shape_passes() -> None:
    assert check("/scratch/base", base=base_facts(), recorded=other()) == []
    resized = other(vocab_size=70)
    assert check("/scratch/base", base=base_facts(), recorded=resized) == []


def test_another_hub_id_of_the_same_shape_is_still_an_error() -> None:
    assert check("org/other", base=base_facts(), recorded=other()) == ["AD360"]


def test_another_revision_of_the_same_base_is_a_warning() -> None:
    base = dataclasses.replace(base_facts(), revision="a" * 40)
    assert check("org/base", base=base, revision="b" * 40) == ["AD365"]
    assert check("org/base", base=base, revision="a" * 40) == []
    assert check("org/base", base=base, revision="main") == []


def test_fit_compares_with_the_source_of_the_base_it_is_given() -> None:
    base = dataclasses.replace(base_facts(), source=HUB)
    adapter = adapter_facts(lora_config(base_model_name_or_path="org/other"))
    findings, _ = check_adapter(adapter, base)
    assert [f.code for f in findings] == ["AD360"]
    assert check_adapter(adapter, base, aliases=["org/other"])[0] == []
