"""``adapterdock migrate``: which lines of a script change, and where that cannot be told."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.migrate import Change, changes_in, migrate
from adapterdock.registry.upstream_names import MODEL, NAMES, PEFT, TRANSFORMERS, by_name, instead


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
