"""What never imports torch, and gives the same verdict with and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.project import Project, files_of, put_folder
from support.published import registry

HEAVY = ("torch", "transformers", "peft", "accelerate", "numpy")
REMOTE = ("huggingface_hub", "fsspec", "s3fs", "aiohttp", "botocore", "httpx", "requests")

BLOCKER = """
    import importlib.abc, sys

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in BLOCKED:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    BLOCKED = set(sys.argv[2].split(",")) - {""}
    sys.meta_path.insert(0, Blocker())
"""


def python(code: str, *arguments: object, cwd: Path | None = None) -> Any:
    """What ``code`` prints as JSON, in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


LOADED = """
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def ready(project: Project) -> Project:
    project.base(tokenizer=True)
    project.adapter("tone")
    project.write({"tone": "./tone"})
    return project


@pytest.mark.parametrize("act", ["validate", "lock", "pull"])
def test_commands_on_local_folders_import_neither_torch_nor_a_network_client(
    act: str, ready: Project
) -> None:
    code = f"import json, sys, adapterdock; adapterdock.{act}(sys.argv[1])" + textwrap.dedent(
        LOADED
    )
    loaded = python(code, ready.manifest)
    assert "pydantic" in loaded
    assert not set(loaded) & {*HEAVY, *REMOTE}


def test_publishing_a_local_folder_does_not_either(ready: Project) -> None:
    registry(ready.folder / "registry")
    code = """
        import json, sys, adapterdock
        options = dict(manifest=sys.argv[1], registry=sys.argv[3], metrics={"accuracy": 0.9})
        done = adapterdock.publish(sys.argv[2], "team/refunds@1.0.0", **options)
        assert done.new
    """
    loaded = python(
        textwrap.dedent(code) + textwrap.dedent(LOADED),
        ready.manifest,
        ready.folder / "tone",
        ready.folder / "registry",
    )
    assert not set(loaded) & {*HEAVY, *REMOTE}


def test_validating_under_a_lock_does_not_either(ready: Project) -> None:
    code = """
        import json, sys, adapterdock
        adapterdock.lock(sys.argv[1])
        assert adapterdock.validate(sys.argv[1], frozen=True).ok
    """
    assert not set(python(textwrap.dedent(code) + textwrap.dedent(LOADED), ready.manifest)) & {
        *HEAVY,
        *REMOTE,
    }


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "adapters.yaml"],
        ["validate", "adapters.yaml", "--json"],
        ["lock", "adapters.yaml"],
        ["pull", "adapters.yaml"],
        ["show", "adapters.yaml"],
        ["fingerprint", "adapters.yaml"],
        ["fingerprint", "adapters.yaml", "--write"],
        ["explain", "AD301"],
        ["cache", "ls"],
        ["--help"],
    ],
)
def test_no_command_that_only_reads_imports_torch(command: list[str], ready: Project) -> None:
    code = """
        import json, sys
        from adapterdock.cli.main import main
        sys.argv = ["adapterdock", *sys.argv[1:]]
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
    """
    loaded = set(python(textwrap.dedent(code) + LOADED_AFTER, *command, cwd=ready.folder))
    assert not loaded & {*HEAVY, *REMOTE}


LOADED_AFTER = textwrap.dedent(LOADED)


def test_hub_and_s3_sources_are_read_without_torch(ready: Project, hub: Any, s3: Any) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    legal = put_folder(s3, s3.bucket(), "legal", ready.adapter("legal", seed=2))
    ready.write({"tone": "hf://acme/tone", "legal": legal})
    code = """
        import json, sys, adapterdock
        assert adapterdock.validate(sys.argv[1]).ok
        adapterdock.lock(sys.argv[1])
        adapterdock.pull(sys.argv[1], frozen=True)
    """
    loaded = python(textwrap.dedent(code) + LOADED_AFTER, ready.manifest)
    assert {"huggingface_hub", "s3fs"} <= set(loaded)
    assert not set(loaded) & set(HEAVY)


VERDICT = """
    import json, adapterdock
    report = adapterdock.validate(sys.argv[1])
    print(json.dumps(report.as_dict()))
"""


@pytest.mark.parametrize("case", ["fits", "misfit", "unchecked", "wrong base"])
def test_the_verdict_is_the_same_with_and_without_torch(case: str, ready: Project) -> None:
    if case == "misfit":
        ready.adapter("tone", modules={"model.layers.0.self_attn.q_proj": (99, 99)})
    elif case == "unchecked":
        ready.base(architectures=["NobodyKnowsForCausalLM"])
    elif case == "wrong base":
        ready.base(kind="gpt2")
    code = textwrap.dedent(BLOCKER) + textwrap.dedent(VERDICT)
    with_torch = python(code, ready.manifest, "")
    without = python(code, ready.manifest, ",".join(HEAVY))
    assert with_torch == without
    assert without["exit_status"] == {"fits": 0, "unchecked": 3}.get(case, 1)


def test_the_import_blocker_of_these_tests_works(ready: Project) -> None:
    code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
        import json
        try:
            import torch
        except ModuleNotFoundError:
            print(json.dumps("blocked"))
    """)
    assert python(code, ready.manifest, "torch") == "blocked"


def test_loading_without_torch_is_refused_first(ready: Project) -> None:
    code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
        import json, adapterdock
        try:
            adapterdock.load
        except adapterdock.UsageError as error:
            print(json.dumps([error.code, error.__cause__.name]))
    """)
    assert python(code, ready.manifest, "torch,transformers") == ["AD903", "torch"]


def test_validating_local_folders_loads_little(ready: Project) -> None:
    """The whole command is to take less than half a second, most of which is imports."""
    code = """
        import json, sys
        from adapterdock.cli.main import main
        sys.argv = ["adapterdock", "validate", "adapters.yaml"]
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        ours = sorted(name for name in sys.modules if name.startswith("adapterdock."))
        print(json.dumps([len(sys.modules), ours]))
    """
    count, ours = python(code, cwd=ready.folder)
    for name in ("lock", "fetch", "store", "pull", "fingerprint", "baseconfig"):
        assert f"adapterdock.registry.{name}" not in ours
    assert not [name for name in ours if name.startswith("adapterdock.loader")]
    assert count < 700
