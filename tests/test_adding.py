"""How many files it takes to add a method, a source, a check, a command or a way of combining.

Each is added to a copy of the package, which then has to know it. What CONTRIBUTING says of
adding one is what is done here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import adapterdock
import pytest

ROOT = Path(adapterdock.__file__).parent
ROOMS = ("manifests", "registry", "loader", "cli")


class House:
    """A copy of the package, and the files that were touched in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "adapterdock"
        ignored = shutil.ignore_patterns("__pycache__")
        for room in (r for r in (*ROOMS, "serving") if (ROOT / r).is_dir()):
            shutil.copytree(ROOT / room, self.root / room, ignore=ignored)
        for file in ROOT.glob("*.py"):
            shutil.copy(file, self.root)
        self.new: list[str] = []
        self.changed: dict[str, int] = {}
        """By file, how many lines were put into it."""

    def add(self, file: str, text: str) -> None:
        assert not (self.root / file).exists()
        (self.root / file).write_text(dedent(text))
        self.new.append(file)

    def put_in(self, file: str, line: str, after: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert text.count(after) == 1, (file, after)
        path.write_text(text.replace(after, f"{after}{line}"))
        self.changed[file] = self.changed.get(file, 0) + 1

    def run(self, code: str, *arguments: object) -> str:
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", dedent(code), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={"PYTHONPATH": f"{self.root.parent}:{ROOT / 'tests'}", "PATH": ""},
        )
        assert found.returncode == 0, found.stderr
        return found.stdout


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "copy")


ON_DISK = '''
    """TOY: a learned vector that is added to what a linear module returns."""

    from ..files.facts import ModuleKind, SitePlan
    from .method import Method
    from .module_plan import on_modules
    from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

    ROLES = {("toy_shift", ""): "shift"}
    SHIFT = frozenset({"shift"})


    def read(config):
        return TunerConfig(**where_of(config))


    def sites(config, patterns):
        return lambda author, live, parts: SitePlan(live, "TOY", parts, 0, 1.0, 1.0)


    def shapes(site, module, found):
        return {"shift": (module.out_features,)}


    plan = on_modules(ROLES, sites)
    METHOD = Method(
        "TOY", TARGET_OPTIONS, read, plan, ROLES, {ModuleKind.LINEAR: SHIFT}, shapes
    )
'''
AT_A_SITE = '''
    """TOY at a site: ``out + shift``."""

    from ..routing.low_rank import Scaling
    from .method import Method


    class Shift:
        def __init__(self, shift):
            self.shift = shift

        def add(self, module, x, base, out, weight):
            return out + self.shift * weight

        def parts(self, module, weight):
            return (Scaling(shift=self.shift * weight),)


    METHOD = Method(
        "TOY",
        lambda site, shape, roles, dropout: Shift(roles["shift"]),
        initial=lambda new: {"shift": new.normal("shift")},
    )
'''
USED = """
    import sys
    import torch
    from pathlib import Path
    from transformers import AutoModelForCausalLM
    from adapterdock.loader.adapted import AdaptedModel
    from support.builders import write_adapter, write_base

    folder = Path(sys.argv[1])
    head, shift = "base_model.model.lm_head.toy_shift", [0.5] * 64
    config = {"peft_type": "TOY", "target_modules": ["lm_head"]}
    base = AutoModelForCausalLM.from_pretrained(write_base(folder / "base"))
    tensors = {head: ("F32", (base.config.vocab_size,))}
    saved = write_adapter(folder / "toy", config, tensors)
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        plain = base(ids).logits
        model = AdaptedModel(base)
        model.load_adapter(saved, "toy")
        model.set_adapter("toy")
        moved = model(ids).logits - plain
        model.add_adapter("new", {**config, "target_modules": ["q_proj"]})
        both = model(ids.repeat(2, 1), adapter_names=["toy", "__base__"]).logits - plain
    assert moved.abs().max() > 1e-4
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-6), "one vector for all"
    assert torch.allclose(both[0], moved[0], atol=1e-6)
    assert both[1].abs().max() < 1e-6, "the base alone"
"""


def test_a_method_is_one_new_file_and_its_name_in_the_list_of_each_room(
    house: House, tmp_path: Path
) -> None:
    for room, text in (("registry", ON_DISK), ("loader", AT_A_SITE)):
        house.add(f"{room}/methods/toy.py", text)
        table = f"{room}/methods/table.py"
        house.put_in(table, "\nfrom . import toy", "from .method import Method")
        house.put_in(table, "\n    toy.METHOD,", "    adalora.METHOD,")
    house.run(USED, tmp_path)
    assert len(house.new) == 2
    assert house.changed == {"registry/methods/table.py": 2, "loader/methods/table.py": 2}


def test_a_source_is_one_new_file_and_its_scheme_in_the_list(house: House, tmp_path: Path) -> None:
    house.add(
        "registry/sources/toy.py",
        '''
        """A folder at ``toy:///PATH``: one on this machine, under another scheme."""

        from pathlib import Path

        from .local import LocalFolder


        def open_folder(request):
            place = Path("/", str(request.source).removeprefix("toy://"))
            return LocalFolder(request, place)
        ''',
    )
    file, after = "registry/sources/open.py", '    **dict.fromkeys(S3, "s3"),'
    house.put_in(file, '\n    "toy": "toy",', after)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "notes.txt").write_text("hello")
    said = house.run(
        """
        import sys
        from pathlib import Path
        from adapterdock.manifests.language.source import Source
        from adapterdock.registry.sources.open import open_source

        folder = open_source(Source.parse(f"toy://{sys.argv[1]}"), directory=Path())
        print(*folder.files(), folder.read("notes.txt").decode())
        """,
        tmp_path / "shelf",
    )
    assert said == "notes.txt hello\n"
    assert len(house.new) == 1
    assert house.changed == {file: 1}


def test_a_check_is_one_new_file_and_its_place_in_the_list(house: House, tmp_path: Path) -> None:
    house.add(
        "registry/checks/toy.py",
        """
        from ...manifests.findings import fit as codes


        def check(subject):
            return [codes.TARGETS_UNDECLARED.finding("the toy was asked", subject.where)]
        """,
    )
    house.put_in("registry/checks/table.py", "\n    toy,", "    tokens,")
    house.put_in("registry/checks/table.py", "\n    toy.check,", "    base.check,")
    said = house.run(
        """
        import sys
        from pathlib import Path
        from adapterdock.registry.checks.check_adapter import check_adapter
        from support.builders import write_adapter
        from support.method_fit import facts_of

        adapter = facts_of(write_adapter(Path(sys.argv[1]) / "a"))
        print([finding.message for finding in check_adapter(adapter, None)[0]])
        """,
        tmp_path,
    )
    assert "the toy was asked" in said
    assert len(house.new) == 1
    assert house.changed == {"registry/checks/table.py": 2}


def test_a_command_is_one_new_file_and_its_name_in_the_list(house: House) -> None:
    house.add(
        "cli/toy.py",
        '''
        """`adapterdock toy`."""

        from .console import say


        def toy() -> None:
            """Say hello."""
            say("hello from the toy")
        ''',
    )
    house.put_in("cli/main.py", "\n    toy,", "\n    show,")
    house.put_in("cli/main.py", '\n    ("toy", toy.toy),', '    ("merge", merge.merge),')
    said = house.run(
        "import sys; sys.argv[1:] = ['toy']; from adapterdock.cli.main import main; main()"
    )
    assert said == "hello from the toy\n"
    assert len(house.new) == 1
    assert house.changed == {"cli/main.py": 2}


def test_a_way_of_combining_is_two_lines_in_one_file(house: House) -> None:
    file = "manifests/language/combine_methods.py"
    house.put_in(file, '\n    "toy",', '    "magnitude_prune_svd",')
    house.put_in(
        file,
        '\n    "toy": CombineMethod("ranks", "largest", elect=False),',
        '    "magnitude_prune_svd": CombineMethod("delta", "largest"),',
    )
    house.run(
        """
        import torch
        from pathlib import Path
        from adapterdock.loader.compose.methods import Contribution, combine
        from adapterdock.loader.compose.pairs import Pair, PairPlace
        from adapterdock.manifests.language.schema import Composition
        from adapterdock.registry.files.facts import ModuleKind

        recipe = Composition(of={"a": 1.0, "b": 0.5}, combine="toy", density=0.5)
        pair = Pair(torch.ones(1, 2, 4), torch.ones(1, 4, 2), 1.0)
        place = PairPlace("q_proj", ModuleKind.LINEAR, (), 1)
        parts = [Contribution(pair, weight, name) for name, weight in recipe.of.items()]
        made = combine(recipe, place, parts)
        assert made.rank == 4
        """
    )
    assert house.new == []
    assert house.changed == {file: 2}
