"""``adapterdock migrate``: which lines of a script change, and where that cannot be told."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.migrate import Change, changes_in, migrate
from adapterdock.registry.upstream_names import MODEL, NAMES, PEFT, TRANSFORMERS, by_name, instead
from support.peft_adapters import tiny_llama


def found(script: str) -> list[Change]:
    return changes_in(textwrap.dedent(script), "s.py")[0]


def lines(script: str) -> list[tuple[int, str]]:
    """The line of each change and what is written there now; a ``?`` where it cannot be told."""
    return [(one.line, one.ours + ("" if one.certain else "?")) for one in found(script)]


LOADED = "AdaptedModel.from_pretrained(...)"
IMPORT = "from adapterdock import AdaptedModel"


@pytest.mark.parametrize(
    "script",
    [
        "from peft import PeftModel\nm = PeftModel.from_pretrained(base, 'a')\n",
        "from peft import PeftModel as P\nm = P.from_pretrained(base, 'a')\n",
        "from peft.peft_model import PeftModelForCausalLM\n"
        "m = PeftModelForCausalLM.from_pretrained(base, 'a')\n",
    ],
)
def test_loading_is_found_under_any_name(script: str) -> None:
    assert lines(script + "m.unload()\n") == [(1, IMPORT), (2, LOADED), (3, "m.detach()")]


def test_the_module_itself_under_an_alias_is_found() -> None:
    script = "import peft as p\nm = p.PeftModel.from_pretrained(b, 'a').to('cuda').eval()\n"
    assert lines(script + "m.get_layer_status()\n") == [(2, LOADED), (3, "m.adapters")]
    assert lines("import peft.utils\npeft.utils.load_peft_weights('a')\n") == [
        (2, "model.load_adapter(source, name)")
    ]


def test_lines_that_stay_are_counted_and_not_shown() -> None:
    script = """
        from peft import PeftModel, LoraConfig
        m = PeftModel.from_pretrained(base, "a")
        m.set_adapter("b")
        m.load_adapter("./c", "c")
        m.generate(x)
        print(m.active_adapter, m.peft_config)
    """
    changes, unchanged = changes_in(textwrap.dedent(script), "s.py")
    assert [one.line for one in changes] == [2, 3]
    assert unchanged == 6


def test_arguments_that_are_called_otherwise_are_named() -> None:
    (_, _, bare) = found(
        "from peft import PeftModel\n"
        "m = PeftModel.from_pretrained(base, 'a')\nm.load_adapter('acme/b', 'b')\n"
    )
    assert bare.note == "write ./acme/b for a folder, or hf://acme/b for the Hub"
    (_, _, one) = found(
        "from peft import PeftModel\n"
        "m = PeftModel.from_pretrained(base, 'a', is_trainable=True)\n"
        "m.load_adapter(path, 'b', is_trainable=True, low_cpu_mem_usage=True)\n"
    )
    assert (one.line, one.column) == (3, 1)
    assert (
        "is_trainable=: trainable=" in one.note and "low_cpu_mem_usage=: leave it out" in one.note
    )


def test_models_are_followed_through_attributes_functions_and_annotations() -> None:
    script = """
        import transformers
        from peft import PeftModel, get_peft_model

        def make() -> PeftModel:
            return get_peft_model(transformers.AutoModel.from_pretrained("b"), config)

        class Run:
            def __init__(self, model: "PeftModel"):
                self.model = model
                self.other = make()

            def end(self, any_model):
                self.model.unload()
                self.other.active_adapters[0]
                any_model.unload()
                self.model.base_model.unload()
                merged = self.model.merge_and_unload()
                merged.load_adapter("x")

        base = transformers.AutoModelForCausalLM.from_pretrained("b")
        base.load_adapter("x")
        base.add_adapter(config)
        model, optimizer = accelerator.prepare(get_peft_model(base, config), optimizer)
        model.unload()
    """
    rest = [(line, ours) for line, ours in lines(script) if line > 3]
    load = "AdaptedModel({}).load_adapter(source, name); set_adapter(name)"
    add = "AdaptedModel(base).add_adapter(name, config)"
    new = by_name(PEFT)["get_peft_model"].ours
    assert rest == [
        (6, new),
        (14, "self.model.detach()"),
        (15, "self.other.active_adapters()"),
        (16, "any_model.detach()?"),
        (17, "self.model.detach()"),
        (19, load.format("merged")),
        (22, load.format("base")),
        (23, add),
        (24, new),
        (25, "model.detach()"),
    ]


def test_attributes_belong_to_their_class_and_loops_bind_names() -> None:
    script = """
        from peft import PeftModel

        class Before:
            def use(self):
                self.model.unload()

            def __init__(self):
                self.model = PeftModel.from_pretrained(base, "a")

        class Other:
            def use(self):
                self.model.unload()

        model = PeftModel.from_pretrained(base, "a")
        for model in models:
            model.unload()
    """
    unloads = [(one.line, one.certain) for one in found(script) if "unload" in one.theirs]
    assert unloads == [(6, True), (13, False), (17, False)]


def test_checks_of_a_class_that_would_fail_silently_are_shown() -> None:
    script = """
        import peft
        from peft import PeftModel, LoraConfig
        from peft.tuners.lora import LoraLayer
        isinstance(m, PeftModel)
        isinstance(m, (str, peft.PeftModelForCausalLM))
        [n for n, x in m.named_modules() if isinstance(x, LoraLayer)]
        isinstance(x, peft.tuners.tuners_utils.BaseTunerLayer)
        isinstance(c, LoraConfig) and isinstance(c, peft.PeftConfig)  # configs stay PEFT's
        isinstance(m, torch.nn.Module) or isinstance(m)
    """
    check, layers = "isinstance(..., AdaptedModel)", "name in model.adapters[adapter].modules"
    assert lines(script)[1:] == [(5, check), (6, check), (7, layers), (8, layers)]


def test_what_is_no_model_is_left_alone() -> None:
    script = """
        import shutil
        from transformers import Trainer
        values = {}
        values.unload()
        trainer = Trainer(model=values)
        trainer.save_pretrained("x")
        shutil.copy("a", "b")
        anything.generate(x)
        anything.set_adapter("a")
    """
    assert lines(script) == []


def test_names_that_are_bound_in_branches_keep_the_meaning_that_matters() -> None:
    script = """
        try:
            from peft import PeftModel
        except ImportError:
            PeftModel = None
        if adapter:
            model = PeftModel.from_pretrained(base, adapter)
        else:
            model = base
        model.unload()
        for model in models:
            pass
        model.unload()
        match kind:
            case "a":
                other = model
            case _:
                other = None
        other.unload()
        model = None
        model.unload()

        class Run:
            def load(self):
                self.model = PeftModel.from_pretrained(base, "a")

            def use(self):
                self.model.unload()

            def close(self):
                self.model = None
    """
    unloads = [(one.line, one.certain) for one in found(script) if "unload" in one.theirs]
    assert unloads == [(10, True), (13, True), (19, True), (28, True)]


def test_names_of_a_star_import_are_followed() -> None:
    script = "from peft import *\nm = get_peft_model(base, LoraConfig())\nm.unload()\n"
    assert lines(script)[1:] == [(2, by_name(PEFT)["get_peft_model"].ours), (3, "m.detach()")]


MADE = "from peft import PeftModel\nm = PeftModel.from_pretrained(b, './a')\n"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("m.save_pretrained('d', True, ['a'])", "selected_adapters: write selected_adapters="),
        ("m.save_pretrained('d', safe_serialization=False)", "only safetensors files"),
        ("m.save_pretrained('d', save_function=f)", "save_function=: leave it out"),
        ("m.load_adapter('./b', 'b', True)", "is_trainable: trainable="),
        ("m.load_adapter(model_id='./b', adapter_name='b')", "model_id=: source="),
        ("m.set_adapter(adapter_name='b')", "adapter_name=: adapter="),
        ("m.merge_and_unload(True)", "progressbar: leave it out"),
        ("m.add_weighted_adapter(a, w, 'c', 'svd', 3, None, True)", "svd_full_matrices: leave"),
    ],
)
def test_arguments_that_mean_something_else_here_are_shown(call: str, said: str) -> None:
    (_, _, one) = found(f"{MADE}{call}\n")
    assert one.line == 3 and said in one.note


@pytest.mark.parametrize(
    "call",
    [
        "m.save_pretrained('d', safe_serialization=True, selected_adapters=['a'])",
        "m.load_adapter('./b', 'b')",
        "m.load_adapter(*arguments)",
        "m.set_adapter('b')",
        "m.merge_and_unload(safe_merge=True)",
        "m.add_weighted_adapter(a, w, 'c', 'svd', 3)",
        "print(m.get_base_model().config, m.base_model.config)",
        "print(m.peft_config['default'].r)",
    ],
)
def test_calls_that_mean_the_same_stay(call: str) -> None:
    assert len(found(f"{MADE}{call}\n")) == 2


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("m.base_model.model.lm_head", ["m.base_model"]),
        ("m.base_model.model.model.layers[0]", ["m.base_model"]),
        ("m.model.config", ["m.base_model"]),
        ("m.base_model(x)", ["m(...)"]),
        ("m.base_model.model.generate(x)", ["m.generate(...)"]),
        ("m.get_base_model().forward(x)", ["m.forward(...)"]),
        ("m.base_model(m.active_adapters)", ["m(...)", "m.active_adapters()"]),
        ("m.peft_config['default'].base_model_name_or_path = 'x'", [""]),
        ("m.active_peft_config.r = 3", [""]),
        ("results[m.active_adapters] = 1", ["m.active_adapters()"]),
    ],
)
def test_what_would_be_silently_different_is_shown(line: str, ours: list[str]) -> None:
    """In PEFT's base the adapters act; a base here is untouched."""
    assert [one.ours for one in found(f"{MADE}{line}\n")[2:]] == ours


def test_unknown_models_are_said_to_be_unknown() -> None:
    (one,) = found("def f(m):\n    return m.merge_adapter and m.get_layer_status()\n")
    assert not one.certain and one.note.startswith("cannot tell")
    (star,) = found("from peft import *\n")
    assert not star.certain and "cannot tell" in star.note
    (named,) = found("model = load()\nmodel.load_adapter('a')\n")
    assert not named.certain and "not active until" in named.note


def test_long_calls_are_shortened() -> None:
    long = ", ".join(f"argument_{n}={n}" for n in range(20))
    (_, one) = found(f"from peft import get_peft_model\nget_peft_model(\n  model, {long})\n")
    assert len(one.theirs) <= 60 and one.theirs.endswith("...")


def test_folders_are_read_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for path in ("a.py", "deep/b.py", ".venv/c.py", "__pycache__/d.py", "deep/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("from peft import get_peft_model\n")
    result = migrate([tmp_path])
    assert result.scripts == 2
    assert {Path(one.file).name for one in result.changes} == {"a.py", "b.py"}
    for wrong in (tmp_path / "deep" / "notes.txt", tmp_path / "none.py", tmp_path / "__pycache__"):
        if wrong.name == "__pycache__":
            assert migrate([wrong]).scripts == 1  # named, so it is meant
            continue
        with pytest.raises(UsageError, match="AD934"):
            migrate([wrong])


@pytest.mark.parametrize(
    "text", [b"print 'x'\n", b"def f(:\n", b"a = '\x00'\n", b"\xff\xfe\n", b"(" * 5000]
)
def test_a_script_that_is_no_python_is_a_finding_and_the_others_are_read(
    tmp_path: Path, text: bytes
) -> None:
    (tmp_path / "bad.py").write_bytes(text)
    (tmp_path / "good.py").write_text("from peft import PeftModel\n")
    result = migrate([tmp_path])
    assert [finding.code for finding in result.findings] == ["AD933"]
    assert [Path(one.file).name for one in result.changes] == ["good.py"]


def test_every_name_of_upstream_has_a_row() -> None:
    import peft
    from peft import PeftModel
    from peft.tuners.lora import LoraModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import nn
    from transformers.integrations.peft import PeftAdapterMixin

    def public(*kinds: type) -> set[str]:
        return {
            name
            for kind in kinds
            for name, value in vars(kind).items()
            if not name.startswith("_") and (callable(value) or isinstance(value, property))
        }

    of_class = {"from_pretrained", "get_model_config", "tuner_layer_cls"}
    inner = {"prefix", "target_module_mapping"}
    model = public(PeftModel, LoraModel, BaseTuner) - set(dir(nn.Module)) - of_class - inner
    assert model - by_name(MODEL).keys() == set()
    assert public(PeftAdapterMixin) - by_name(TRANSFORMERS).keys() == set()
    models = {name for name in dir(peft) if name.startswith(("PeftModel", "AutoPeft", "PeftMixed"))}
    assert models - by_name(PEFT).keys() == set()
    for one in NAMES:
        if one.owner == PEFT:
            assert hasattr(peft, one.name.partition(".")[0]) or one.name in (
                "hotswap_adapter",
                "prepare_model_for_compiled_hotswap",
                "rescale_adapter_scale",
            ), one.name


def test_every_attribute_of_a_peft_model_has_a_row() -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    of_class = {"from_pretrained", "get_model_config"}
    for config in (
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ):
        base = tiny_llama()
        known = {*dir(base), *by_name(MODEL), *of_class}
        model = get_peft_model(base, config)  # type: ignore[arg-type]
        names = {*dir(model), *dir(model.base_model)}
        assert {name for name in names if not name.startswith("_")} - known == set()


@pytest.mark.parametrize("owner", [MODEL, TRANSFORMERS])
def test_arguments_of_methods_that_stay_are_ours_or_are_explained(owner: str) -> None:
    from adapterdock.loader.adapted import AdaptedModel
    from peft import PeftModel
    from peft.tuners.lora import LoraModel
    from transformers.integrations.peft import PeftAdapterMixin

    kinds = (PeftModel, LoraModel) if owner == MODEL else (PeftAdapterMixin,)
    seen = 0
    for one in by_name(owner).values():
        theirs = next((getattr(kind, one.name) for kind in kinds if hasattr(kind, one.name)), None)
        ours = getattr(AdaptedModel, one.name, None)
        if not one.stays or not inspect.isfunction(theirs) or not inspect.isfunction(ours):
            continue
        if one.name in ("forward", "generate"):
            continue  # the base's arguments
        names, unnamed = _arguments(theirs)
        known, places = _arguments(ours)
        assert names - known - one.keywords.keys() == set(), one.name
        placed = 0
        for name, place in zip(unnamed, places, strict=False):
            if place != one.keywords.get(name, name).rstrip("="):
                break
            placed += 1
        if one.others:
            assert (one.placed, one.others) == (placed, tuple(unnamed[placed:])), one.name
        else:
            assert placed == len(unnamed), one.name
        seen += 1
    assert seen >= 3


def _arguments(function: Any) -> tuple[set[str], list[str]]:
    """The names of all arguments, and of those that may be given without one."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {one.name for one in parameters if one.kind not in kinds}
    unnamed = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    return names, unnamed


def test_what_takes_a_names_place_exists() -> None:
    from adapterdock.loader.adapted import AdaptedModel

    for one in NAMES:
        if one.owner == MODEL and one.ours:
            first = one.ours.removeprefix("{model}.").split("(")[0].split("[")[0]
            if "." not in first and first not in ("forward", "base_model", "dtype", "bool"):
                assert hasattr(AdaptedModel, first), one.name
    assert instead("get_layer_status") == "Use `model.adapters`: facts of each adapter by name"
    assert instead("set_adapter") is None and instead("nothing") is None
    assert instead("prepare_model_for_gradient_checkpointing") == "Not needed: leave it out"
