"""The public names of the wrapper, and suggestions for misspelt ones."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import adapterdock
import pytest
from adapterdock.loader.adapted import AdaptedModel
from support.peft_adapters import tiny_llama
from torch import nn

PUBLIC = """
active_adapter active_adapters active_peft_config active_weights adapters add_adapter
add_weighted_adapter compositions default_weights define_composition delete_adapter
delete_composition deployment detach disable_adapter disable_adapters enable_adapters findings
from_pretrained generate get_base_model get_nb_trainable_parameters holding load_adapter
merge_adapter merge_and_unload merged_adapters peft_config plan print_trainable_parameters publish
push_to_hub recipes
refresh_compositions residency rules save_adapter save_composition save_pretrained set_adapter
set_adapter_weights unmerge_adapter using watch
"""


@pytest.fixture(scope="module")
def model() -> AdaptedModel:
    return AdaptedModel(tiny_llama())


def test_the_wrapper_has_only_public_names() -> None:
    own = {name for name in dir(AdaptedModel) if not name.startswith("_")}
    assert own - set(dir(nn.Module)) == set(PUBLIC.split())


def test_every_public_name_is_documented() -> None:
    for name in PUBLIC.split():
        assert inspect.getdoc(getattr(AdaptedModel, name)), name


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("set_adaptr", "set_adapter"),
        ("active_adaptr", "active_adapters"),
        ("get_input_embedings", "get_input_embeddings"),  # the base's
        ("generation_confg", "generation_config"),
    ],
)
def test_a_misspelt_name_is_an_error_with_a_suggestion(
    model: AdaptedModel, wrong: str, right: str
) -> None:
    with pytest.raises(AttributeError, match=f"{wrong!r}. Did you mean {right!r}"):
        getattr(model, wrong)
    assert not hasattr(model, wrong)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("get_layer_status", "model.adapters"),
        ("has_active_enabled_adapter", "bool(model.active_adapters())"),
        ("unload", "model.detach()"),
        ("get_prompt_embedding_to_save", "adapterdock.get_peft_model_state_dict(model, name)"),
        ("set_requires_grad", "trainable=True"),
    ],
)
def test_a_name_of_pefts_that_is_not_here_is_an_error_that_names_ours(
    model: AdaptedModel, name: str, ours: str
) -> None:
    with pytest.raises(AttributeError, match=name) as caught:
        getattr(model, name)
    assert "Use `" in str(caught.value) and ours in str(caught.value)
    assert not hasattr(model, name)


@pytest.mark.parametrize("name", ["nothing_of_the_kind", "_set_adapter", "__set_adapter__"])
def test_a_very_different_name_gets_no_suggestion(model: AdaptedModel, name: str) -> None:
    with pytest.raises(AttributeError, match=name) as caught:
        getattr(model, name)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.slow
def test_a_misspelt_name_fails_type_checking(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import adapterdock\n\n\n"
        "def use(model: adapterdock.AdaptedModel) -> None:\n"
        "    model.set_adapter('one')\n"
        "    model.generate(model.config, device=model.device, dtype=model.dtype)\n"
        "    model.base_model(model.can_generate())\n"
        "    model.set_adaptr('one')\n"
        "    print(model.confg)\n"
    )
    # The checkout may have any name; a type checker does not follow an editable install.
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "adapterdock").symlink_to(Path(adapterdock.__file__).parent)
    settings = {
        "extraPaths": ["path"],
        "exclude": ["path"],
        "typeCheckingMode": "standard",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    checker = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(tmp_path)]
    done = subprocess.run(
        [*checker, "--pythonpath", sys.executable], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {one["range"]["start"]["line"] + 1: one for one in found}
    assert errors.keys() == {8, 9}, found
    assert all(one["rule"] == "reportAttributeAccessIssue" for one in errors.values()), found
