"""A model as HTML for notebooks."""

from __future__ import annotations

from pathlib import Path

import adapterdock
from IPython.lib.pretty import pretty


def test_a_model_shows_its_adapters_and_what_they_do(at_desk: Path) -> None:
    model = adapterdock.load("adapters.yaml")
    model.set_adapter({"a0": 0.5})
    html = model._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "LlamaForCausalLM" in html and "active, weight 0.5" in html
    assert html.count("<tr>") == 3 and "LORA" in html
    path = Path("adapters.yaml")
    path.write_text(path.read_text().replace("a1:", "a2:"))
    adapterdock.lock(path)
    plan = model.plan(path)
    assert "<code>adapter a2" in plan._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "Plan: 1 to add" in plan._repr_html_()  # pyright: ignore[reportPrivateUsage]


def test_a_lock_is_a_short_table_and_its_repr_is_complete(at_desk: Path) -> None:
    lock = adapterdock.lock("adapters.yaml")
    html, printed = lock._repr_html_(), pretty(lock)  # pyright: ignore[reportPrivateUsage]
    for text in (html, printed):
        assert "LlamaForCausalLM" in text and "a0" in text and "LORA" in text
        assert "samples" not in text and len(text) < 3000
    assert printed.splitlines()[0].split() == ["name", "method", "rank", "digest", "source"]
    assert "samples/1:" in repr(lock)


def test_reports_and_plans_read_the_same_in_ipython_as_printed(at_desk: Path) -> None:
    model = adapterdock.load("adapters.yaml")
    for shown in (adapterdock.validate("adapters.yaml"), model.plan("adapters.yaml")):
        assert pretty(shown) == str(shown)
