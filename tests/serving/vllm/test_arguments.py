"""The arguments of a server are read as vLLM reads them, before vLLM does."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.serving.vllm.arguments import Arguments, read_arguments

MODULE = "/env/lib/python3.11/site-packages/vllm/entrypoints/openai/api_server.py"


@pytest.mark.parametrize(
    "argv",
    [
        [MODULE, "--model", "/models/base", "--enable-lora", "--port", "8000"],
        [MODULE, "--model=/models/base", "--enable_lora"],
        ["/env/bin/vllm", "serve", "/models/base", "--enable-lora"],
        ["/env/bin/vllm", "serve", "--enable-lora", "--model", "/models/base"],
    ],
)
def test_the_model_is_found_however_it_is_written(argv: list[str]) -> None:
    arguments = read_arguments(argv)
    assert arguments.is_server
    assert arguments.model == "/models/base"
    assert arguments.enable_lora is True


def test_other_arguments_are_read() -> None:
    line = "--model M --revision abc --load-format=dummy --api-server-count 2 --no-enable-lora"
    arguments = read_arguments([MODULE, *line.split()])
    assert arguments == Arguments(True, "M", "abc", "dummy", False, 2)


def test_a_config_file_counts_where_the_command_line_is_silent(tmp_path: Path) -> None:
    config = tmp_path / "vllm.yaml"
    config.write_text("model: from-file\nenable_lora: true\nrevision: from-file\n")
    line = ["/env/bin/vllm", "serve", "--config", str(config), "--revision", "from-line"]
    arguments = read_arguments(line)
    assert arguments.model == "from-file"
    assert arguments.enable_lora is True
    assert arguments.revision == "from-line"


@pytest.mark.parametrize("content", [b"- a list", b"{", b"\xff\xfe", b""])
def test_a_config_file_that_cannot_be_read_is_left_to_vllm(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "vllm.yaml"
    config.write_bytes(content)
    assert read_arguments([MODULE, "--config", str(config)]).model is None


@pytest.mark.parametrize(
    "argv", [[], ["notebook.py"], ["/env/bin/vllm", "bench"], ["registry.py", "--model", "M"]]
)
def test_another_program_is_not_a_server(argv: list[str]) -> None:
    assert read_arguments(argv) == Arguments()
