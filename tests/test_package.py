"""The package as a whole: what importing it costs, and what a user finds in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from support.near import close
from support.peft_adapters import ids, logits
from support.shelf import Shelf, manifest_of, put_all


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import adapterdock; "
        "new = {m for m in set(sys.modules) - before if m.startswith('adapterdock')}; "
        "assert new == {'adapterdock'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    for name in adapterdock.__all__:
        assert getattr(adapterdock, name) is not None
        assert name in dir(adapterdock)
    tree = ast.parse(Path(adapterdock.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: f".{node.module}" for node in imported for alias in node.names}
    assert typed == adapterdock._EXPORTS
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = adapterdock.laod


def test_every_error_is_one_that_the_package_exports() -> None:
    from adapterdock.manifests.findings import errors

    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert len(ours) > 10
    assert ours <= set(adapterdock.__all__)
    assert all(issubclass(vars(errors)[name], adapterdock.AdapterdockError) for name in ours)


def test_without_torch_only_what_needs_torch_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "import adapterdock\n"
        f"report = adapterdock.validate({str(manifest)!r})\n"
        "assert report.ok, report\n"
        "try:\n    adapterdock.load\n"
        "except adapterdock.UsageError as error:\n    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("AD903\n", 0), done.stderr


def test_the_python_example_runs_as_it_is_written(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    s3.client.call_s3("create_bucket", Bucket="team-adapters")
    assert put_all(s3, "team-adapters", "refunds/v1", shelf.one.folder).endswith("/refunds/v1")
    manifest_of(
        shelf,
        tmp_path,
        adapters={"billing": {"source": shelf.one}, "tone": {"source": shelf.two}},
        compositions={"formal-billing": {"of": {"billing": 1.0, "tone": 0.4}}},
    )
    hf_model, inputs = shelf.model(), {"input_ids": ids()}

    report = adapterdock.validate("adapters.yaml")
    assert report.ok
    for finding in report.findings:
        assert finding.code.startswith("AD")
        assert finding.severity == "warning"
        assert finding.message and finding.where and finding.hint
    lock = adapterdock.lock("adapters.yaml")
    assert sorted(lock.adapters) == ["billing", "tone"]
    model = adapterdock.load("adapters.yaml")
    assert isinstance(model, adapterdock.AdaptedModel)
    model = adapterdock.attach(hf_model, "adapters.yaml")
    with model.using("tone"):
        toned = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    named = model.generate(**inputs, adapter="tone", do_sample=False, max_new_tokens=4)
    assert torch.equal(toned, named)
    model.generate(**inputs, adapter="billing")
    model.set_adapter("formal-billing")
    assert model.active_adapters() == ["billing", "tone"]
    answer = shelf.sum(one=1.0, two=0.4)
    assert close(logits(model), answer)
    assert model.base_model is hf_model
    assert torch.equal(logits(model.base_model), shelf.plain)
    model.load_adapter("s3://team-adapters/refunds/v1", "refunds")
    assert close(logits(model, adapter="refunds"), shelf.one.answer)
    pulled = adapterdock.pull("adapters.yaml")
    assert sorted(pulled.adapters) == ["billing", "tone"]
