"""Compositions of a manifest: every method runs, the lock pins the recipe, masks are the lock's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.loader.load import attach, load
from adapterdock.manifests.findings.errors import PolicyError, RoutingError
from support.combinations import ALL, digest_of, options_of, peft_answer, products
from support.near import close
from support.peft_adapters import logits, peft_saves
from support.shelf import Shelf, manifest_of


def mixes(**more: Any) -> dict[str, Any]:
    found = {}
    for method in ALL:
        if method.endswith("svd") or method in ("sum", "cat"):
            of = {"one": 0.7, "two": -0.4}
            name = f"mix-{method.replace('_', '-')}"
            found[name] = {"combine": method, "of": of, **options_of(method), **more}
    return found


def test_every_method_runs_from_a_manifest(shelf: Shelf, tmp_path: Path) -> None:
    path = manifest_of(shelf, tmp_path, compositions=mixes(), active="mix-svd")
    lock = adapterdock.lock(path)
    assert all(entry.digest for entry in lock.compositions.values())
    assert len({entry.digest for entry in lock.compositions.values()}) == len(mixes())
    model = attach(shelf.model(), path, frozen=True)
    assert model.active_adapters() == ["mix-svd"]
    folders = [shelf.one.folder, shelf.two.folder]
    for name, mix in mixes().items():
        method = mix["combine"]
        if method.startswith("dare") or method == "sum":
            continue
        wanted = peft_answer(shelf.model(), folders, [0.7, -0.4], method, **options_of(method))
        assert close(logits(model, adapter=name), wanted, 512)
    assert close(logits(model, adapter="mix-sum"), shelf.sum(one=0.7, two=-0.4))
    assert close(logits(model, adapter="mix-cat"), shelf.sum(one=0.7, two=-0.4))


def test_masks_are_keyed_by_the_digest_in_the_lock(shelf: Shelf, tmp_path: Path) -> None:
    path = manifest_of(shelf, tmp_path, compositions=mixes())
    lock = adapterdock.lock(path)
    first, second = attach(shelf.model(), path), load(path, frozen=True)
    for name in ("one", "two"):
        assert digest_of(first, name) == lock.adapters[name].digest
    for name in ("mix-dare-linear-svd", "mix-dare-ties-svd"):
        ours, again = products(first, name), products(second, name)
        assert all(close(ours[module], again[module]) for module in ours)


def test_an_adapter_without_a_digest_is_keyed_by_its_values(shelf: Shelf, tmp_path: Path) -> None:
    path = manifest_of(shelf, tmp_path, adapters={})
    found = []
    for name in ("first", "second"):
        model = attach(shelf.model(), path)
        model.load_adapter(shelf.one.folder, name)
        model.load_adapter(shelf.two.folder, "other")
        assert model._host.adapters.by_name[name].digest is None
        found.append(digest_of(model, name))
        assert found[-1] != digest_of(model, "other")
    assert found[0] == found[1]  # whatever it is called


def test_rules_of_the_manifest_see_the_members(shelf: Shelf, tmp_path: Path) -> None:
    more = {"rules": {"exclusive": [["two", "three"]], "max_total_rank": 12}}
    three = peft_saves(shelf.model(), tmp_path / "three", seed=4, target_modules=["q_proj"])
    saved = {"one": shelf.one, "two": shelf.two, "three": three}
    adapters = {name: {"source": one} for name, one in saved.items()}
    path = manifest_of(shelf, tmp_path, adapters=adapters, compositions=mixes(), **more)
    model = attach(shelf.model(), path)
    model.set_adapter("mix-svd")
    with pytest.raises(PolicyError, match="'two' and 'three'"):
        model.set_adapter(["mix-svd", "three"])


def test_active_may_list_a_combination_and_others(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {
        "half": {"of": {"two": 0.5}},
        "thin": {"combine": "cat", "of": {"one": 0.25}},
    }
    for active, wanted in (
        (["thin", "half"], {"thin": 1.0, "two": 0.5}),
        (["thin", "half", "two"], {"two": 1.5, "thin": 1.0}),
    ):
        path = manifest_of(shelf, tmp_path, compositions=compositions, active=active)
        model = attach(shelf.model(), path)
        assert model.active_weights() == wanted
        weights = {"one": 0.25, "two": wanted["two"]}
        assert close(logits(model), shelf.sum(**weights))


def test_the_active_composition_follows_its_weights(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {"mix": {"of": {"one": 1.0, "two": {"*.layers.0.*": 0.5}}}}
    path = manifest_of(shelf, tmp_path, compositions=compositions, active="mix")
    model = attach(shelf.model(), path)
    assert close(logits(model), logits(model, adapter={"one": 1.0, "two": {"*.layers.0.*": 0.5}}))
    model.set_adapter_weights("mix", {"two": -1.0})
    assert close(logits(model), shelf.sum(one=1.0, two=-1.0))


def test_a_typo_in_a_glob_is_reported_at_its_composition(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {"mix": {"of": {"one": 1.0, "two": {"*.mlp.*": 0.5}}}}
    path = manifest_of(shelf, tmp_path, compositions=compositions)
    with pytest.raises(RoutingError) as caught:
        attach(shelf.model(), path)
    assert caught.value.code == "AD709"
    assert caught.value.findings[0].where.dotted == "compositions.mix"
