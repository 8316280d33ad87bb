"""Reading adapters and bases from their folders: what is refused, and how little is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.facts import AdapterFacts, BaseFacts
from adapterdock.registry.read_facts import (
    gather_adapter,
    gather_base,
    gather_tokenizer,
    read_tokenizer_files,
    reader_of,
)
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.builders import (
    base_config,
    base_tensors,
    write_adapter,
    write_base,
    write_safetensors,
    write_tokenizer,
)
from support.hub_server import HubServer
from support.project import files_of, put_folder
from support.s3_server import S3Server

WHERE = Where("adapters.yaml", ("base", "model"), 3, 10)


def opened(place: Path | str) -> Folder:
    source = Source.parse(str(place))
    return open_source(source, directory=Path("/"), where=WHERE)


def base(place: Path | str, **options: Any) -> BaseFacts:
    return gather_base(opened(place), WHERE, **options)


def adapter(place: Path | str) -> AdapterFacts:
    return gather_adapter("tone", opened(place), WHERE)


def refused(place: Path, kind: str = "base") -> AdapterdockError:
    with pytest.raises(AdapterdockError) as caught:
        base(place) if kind == "base" else adapter(place)
    return caught.value


def write_sharded(folder: Path, shards: int = 3) -> dict[str, str]:
    """A tiny Llama in several files; its weight map."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(base_config("llama")))
    tensors = base_tensors("llama")
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        write_safetensors(folder / file, part, seed=1)
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> None:
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def test_a_sharded_base_is_the_base_in_one_file(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path / "sharded")
    whole, parts = base(write_base(tmp_path / "whole")), base(tmp_path / "sharded")
    shapes = {name: info.shape for name, info in whole.tensors.items()}
    assert {name: info.shape for name, info in parts.tensors.items()} == shapes
    assert {t: file for file, header in parts.headers.items() for t in header.tensors} == weight_map
    assert parts.layout == whole.layout and whole.layout is not None
    assert {f.path for f in parts.files} == {
        "config.json",
        "model.safetensors.index.json",
        *weight_map.values(),
    }


@pytest.mark.parametrize("kind", ["local", "hub", "s3", "memory"])
def test_a_base_is_the_same_wherever_it_lies(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write_sharded(tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    expected = base(tmp_path / "base")
    found = base(placed(kind, tmp_path / "base", request))
    assert (found.tensors, found.layout, found.config) == (
        expected.tensors,
        expected.layout,
        expected.config,
    )
    assert [(f.path, f.size) for f in found.files] == [(f.path, f.size) for f in expected.files]
    assert all(h.tensors == expected.headers[f].tensors for f, h in found.headers.items())


def placed(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "local":
        return str(folder)
    if kind == "hub":
        hub: HubServer = request.getfixturevalue("hub")
        hub.commit("org/base", files_of(folder))
        return "hf://org/base"
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        return put_folder(s3, s3.bucket(), "base", folder)
    fs = fsspec.filesystem("memory")
    for path, content in files_of(folder).items():
        fs.pipe_file(f"/{folder.parent.name}/{path}", content)
    return f"memory://{folder.parent.name}"


def test_headers_are_read_and_weights_are_not(tmp_path: Path, s3: S3Server) -> None:
    big = {"model.embed_tokens.weight": ("F32", (512, 1024))}
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(base_config("llama")))
    write_safetensors(folder / "model.safetensors", big)
    opened_folder = opened(put_folder(s3, s3.bucket(), "base", folder))
    facts = gather_base(opened_folder, WHERE)
    assert opened_folder.bytes_read < 64 * 1024
    header = facts.headers["model.safetensors"]
    info = facts.tensors["model.embed_tokens.weight"]
    read = reader_of(opened_folder)
    assert read("model.safetensors", header.data_start + info.start, 8) == bytes(8)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("missing shard", "AD254", "1 of 3 shards"),
        ("index lies", "AD254", "not where"),
        ("index of nothing", "AD254", "not where"),
        ("tensor twice", "AD254", "in two shards"),
        ("index is a list", "AD254", "not a JSON object"),
        ("index is empty", "AD254", "weight_map"),
        ("index maps to numbers", "AD254", "weight_map"),
        ("index leads out", "AD254", "shards of the base are missing"),
        ("config is garbage", "AD254", "not JSON"),
        ("config is a list", "AD254", "not a JSON object"),
        ("config is huge", "AD255", "too large"),
        ("config is deep", "AD254", "not JSON"),
        ("no config", "AD253", "no base model"),
        ("no weights", "AD253", "no base model"),
        ("pickle", "AD252", "pytorch_model.bin"),
        ("adapter inside", "AD256", "adapter_config.json"),
    ],
)
def test_a_base_that_is_not_what_it_should_be_is_refused(
    change: str, code: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    weight_map = write_sharded(folder)
    first, second = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
    config, index = folder / "config.json", folder / "model.safetensors.index.json"
    if change == "missing shard":
        (folder / first).unlink()
    elif change == "index lies":
        write_index(folder, {**weight_map, min(weight_map): second})
    elif change == "index of nothing":
        write_index(folder, {**weight_map, "model.nowhere.weight": first})
    elif change == "tensor twice":
        name = next(n for n, shard in weight_map.items() if shard == second)
        shape = base_tensors("llama")
        part = {n: shape[n] for n, shard in weight_map.items() if shard == first}
        write_safetensors(folder / first, {**part, name: shape[name]})
    elif change == "index is a list":
        index.write_text("[]")
    elif change == "index is empty":
        write_index(folder, {})
    elif change == "index maps to numbers":
        write_index(folder, {"a": 1})
    elif change == "index leads out":
        write_index(folder, {"a": "../../../etc/passwd"})
    elif change == "config is garbage":
        config.write_bytes(b"\xff\xfe not json")
    elif change == "config is a list":
        config.write_text("[1]")
    elif change == "config is huge":
        config.write_text("{}" + " " * (5 << 20))
    elif change == "config is deep":
        config.write_text("[" * 200_000)
    elif change == "no config":
        config.unlink()
    elif change in ("no weights", "pickle"):
        index.unlink()
        if change == "pickle":
            (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    elif change == "adapter inside":
        (folder / "adapter_config.json").write_text("{}")
    error = refused(folder)
    assert error.code == code
    assert said in str(error)
    assert error.findings[0].where == WHERE


def test_one_whole_file_is_used_before_an_index(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    write_index(folder, {"a": "gone.safetensors"})
    assert set(base(folder).headers) == {"model.safetensors"}


def test_what_a_base_needs_is_pinned_and_nothing_else(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", tokenizer=True)
    for name in ("generation_config.json", "chat_template.jinja", "README.md", "run.py"):
        (folder / name).write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    needed = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    }
    assert {f.path for f in base(folder).files} == needed
    assert {f.path for f in base(folder, remote_code=True).files} == {*needed, "run.py"}


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("empty", "AD251", "an empty folder"),
        ("no config", "AD251", "adapter_config.json"),
        ("no weights", "AD251", "adapter_model.safetensors"),
        ("pickle", "AD252", "adapter_model.bin"),
        ("deeper", "AD251", "which holds an adapter"),
        ("huge config", "AD255", "too large"),
    ],
)
def test_a_folder_that_is_no_adapter_is_refused(
    change: str, code: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tone"
    if change == "empty":
        folder.mkdir()
    elif change == "deeper":
        write_adapter(folder / "tone")
    else:
        write_adapter(folder)
    if change == "no config":
        (folder / "adapter_config.json").unlink()
    elif change in ("no weights", "pickle"):
        (folder / "adapter_model.safetensors").unlink()
        if change == "pickle":
            (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    elif change == "huge config":
        (folder / "adapter_config.json").write_text("{}" + " " * (5 << 20))
    error = refused(folder, "adapter")
    assert error.code == code and said in str(error)


def test_an_adapter_s_tokenizer_is_read_and_not_consumed(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "tone")
    assert gather_tokenizer(opened(folder), WHERE) is None
    write_tokenizer(folder, {"<extra>": 64})
    known = gather_tokenizer(opened(folder), WHERE)
    assert known is not None and known.rows == 65
    assert {f.path for f in adapter(folder).files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert set(read_tokenizer_files(opened(folder), WHERE)) == {
        "tokenizer.json",
        "tokenizer_config.json",
    }
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AdapterdockError) as caught:
        gather_tokenizer(opened(folder), WHERE)
    assert caught.value.code == "AD258"


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM", [1], [None], {}])
def test_a_config_without_a_class_has_no_architecture_and_no_layout(
    architectures: Any, tmp_path: Path
) -> None:
    facts = base(write_base(tmp_path / "base", architectures=architectures))
    assert (facts.architecture, facts.layout) == (None, None)
