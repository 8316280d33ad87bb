"""`adapterdock validate --target`: what an engine cannot serve, before it is deployed."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable

from click.testing import Result
from support.builders import write_adapter
from support.project import Project

Cli = Callable[..., Result]
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def ready(project: Project, **fields: object) -> Project:
    project.base()
    project.adapter("tone", **fields)  # type: ignore[arg-type]
    project.write({"tone": "./tone"})
    return project


def test_an_adapter_that_the_engine_serves_passes(project: Project, cli: Cli) -> None:
    ready(project)
    done = cli("validate", project.manifest, "--target", "vllm==0.32", "--max-rank", 16)
    assert done.exit_code == 0, done.output


def test_one_that_it_does_not_serve_fails_and_fits_without_a_target(
    project: Project, cli: Cli
) -> None:
    ready(project, alora_invocation_tokens=[5])
    assert cli("validate", project.manifest).exit_code == 0
    done = cli("validate", project.manifest, "--target", "vllm==0.32")
    assert done.exit_code == 1
    assert "vLLM 0.32 does not serve aLoRA: it refuses to load the adapter" in done.output


def test_the_findings_are_in_the_json_report(project: Project, cli: Cli) -> None:
    ready(project, r=32)
    done = cli("validate", project.manifest, "--target", "vllm", "--max-rank", 16, "--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["code"], finding["expected"]) == ("AD946", "at most 16")
    assert finding["where"]["path"] == "adapters.tone.source"


def test_what_is_not_known_fails_until_it_is_accepted(project: Project, cli: Cli) -> None:
    ready(project)
    project.base(architectures=["MistralForCausalLM"], model_type="mistral")
    base = project.folder / "base" / "config.json"
    base.write_text(base.read_text().replace('"hidden_size"', '"quantization": 1, "hidden_size"'))
    call = ("validate", project.manifest, "--target", "vllm")
    assert cli(*call).exit_code == 0
    bare = {name.removeprefix("base_model.model."): spec for name, spec in _tensors().items()}
    write_adapter(project.folder / "tone", _config(), bare)
    assert cli(*call).exit_code == 3
    assert cli(*call, "--accept", "AD948").exit_code == 0


def test_nan_is_found_in_files_on_this_machine(project: Project, cli: Cli) -> None:
    ready(project)
    raw = struct.pack("<64f", math.nan, *[0.1] * 63)
    write_adapter(project.folder / "tone", _config(), overrides={FIRST: raw})
    assert cli("validate", project.manifest).exit_code == 0
    done = cli("validate", project.manifest, "--target", "vllm")
    assert done.exit_code == 1
    assert "AD866" in done.output


def test_a_wrong_target_is_wrong_usage(project: Project, cli: Cli) -> None:
    ready(project)
    for options in (
        ("--target", "vlm"),
        ("--target", "vllm==0.1"),
        ("--target", "vllm", "--max-rank", "24"),
        ("--max-rank", "16"),
        ("--max-loras", "2"),
        ("--target", "mlx", "--max-rank", "16"),
    ):
        done = cli("validate", project.manifest, *options)
        assert done.exit_code == 2, options
        assert "AD943" in done.output


def _config() -> dict[str, object]:
    from support.builders import lora_config
    from support.project import NAME

    return lora_config(base_model_name_or_path=NAME)


def _tensors() -> dict[str, tuple[str, tuple[int, ...]]]:
    from support.builders import LLAMA_QV, lora_tensors

    return lora_tensors(LLAMA_QV)
