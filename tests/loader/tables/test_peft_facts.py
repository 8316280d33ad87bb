"""The committed facts of PEFT are those of the installed PEFT."""

from __future__ import annotations

from adapterdock.loader.tables.peft_facts import TABLE, table, text_of
from adapterdock.registry.methods.table import THROUGH_PEFT


def test_a_new_export_is_the_committed_one() -> None:
    assert TABLE.read_text(encoding="utf-8") == text_of(table())


def test_a_method_has_every_field_of_its_config_once() -> None:
    for method, facts in table()["methods"].items():
        options = [option.name for option in THROUGH_PEFT[method].options]
        assert len(options) == len(set(options)) and set(options) == set(facts["fields"]), method
