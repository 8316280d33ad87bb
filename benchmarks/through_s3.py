"""Publishing and pulling through S3, beside boto3's own upload and download of the same bytes.

The server (SeaweedFS, as in the tests) runs on this machine and shares its processors, so read the
ratios. Also runs by itself: ``python benchmarks/through_s3.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import struct
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from table import Row
from timing import Times, timed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.files.digests import sha256_file
from adapterdock.registry.lock import lock
from adapterdock.registry.publishing import publish
from adapterdock.registry.pull import pull
from adapterdock.registry.store.store import Store
from support.builders import LLAMA_QV, lora_config, lora_tensors
from support.project import NAME, Project
from support.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, running_s3

LARGE = 1 << 30
"""Bytes of the large adapter."""
MANY, SMALL_RANK = 100, 64
ROUNDS = 4


def s3_rounds(times: Times, folder: Path, size: int = LARGE, many: int = MANY) -> None:
    """Each round publishes and pulls anew: no cache has anything of an earlier one."""
    import boto3

    (folder / "server").mkdir(parents=True)
    with running_s3(folder / "server") as server, _environment(server):
        client = boto3.client("s3")
        bucket = server.bucket()
        project = _project(folder / "project", size)
        file = project.folder / "large" / "adapter_model.safetensors"
        url = f"s3://{bucket}/registry"
        init_registry(open_storage(url, directory=folder))
        for number in range(ROUNDS):
            print(f"1 GB through S3, round {number + 1} of {ROUNDS} ...", file=sys.stderr)
            _change(file, number)
            _one_round(times, project, client, bucket, url, number)
        _many(times, project, url, many)


def _one_round(
    times: Times, project: Project, client: Any, bucket: str, url: str, number: int
) -> None:
    file, folder = project.folder / "large" / "adapter_model.safetensors", project.folder
    key, copy = f"boto3-{number}", folder / "copy"
    reference = f"team/large@1.0.{number}"
    store = Store(folder / "store")
    project.write({"large": "./large"}, registries={"team": url})

    def ours() -> None:
        done = publish(folder / "large", reference, manifest=project.manifest, store=store)
        assert done is not None and done.new

    steps: list[tuple[str, Callable[[], object]]] = [
        ("s3 up boto3", partial(client.upload_file, str(file), bucket, key)),
        ("s3 up ours", ours),
    ]
    # what boto3 leaves to others: the digest that says whether the file is the right one
    timed(times, "s3 hash", partial(sha256_file, file))
    for name, act in steps if number % 2 == 0 else reversed(steps):
        os.sync()  # what was written before is not written now
        timed(times, name, act)
    project.write({"large": f"registry://{reference}"}, registries={"team": url})
    lock(project.manifest, store=store)
    steps = [
        ("s3 down boto3", partial(client.download_file, bucket, key, str(copy))),
        ("s3 down ours", partial(pull, project.manifest, store=store, with_base=False)),
    ]
    for name, act in steps if number % 2 == 0 else reversed(steps):
        # Removed at once, so that each finds as many pages of memory that were just in use.
        shutil.rmtree(store.root, ignore_errors=True)
        copy.unlink(missing_ok=True)
        os.sync()
        timed(times, name, act)
    shutil.rmtree(store.root, ignore_errors=True)
    copy.unlink(missing_ok=True)
    client.delete_object(Bucket=bucket, Key=key)


def _many(times: Times, project: Project, url: str, many: int) -> None:
    """Many small adapters, pulled with an empty cache."""
    names = [f"small-{number:03}" for number in range(many)]
    for number, name in enumerate(names):
        project.adapter(name, seed=number + 1, r=SMALL_RANK)
        project.write({name: f"./{name}"}, registries={"team": url})
        publish(
            project.folder / name,
            f"team/many/{name}@1.0.0",
            manifest=project.manifest,
            new_name=True,
        )
    project.write(
        {name: f"registry://team/many/{name}@1.0.0" for name in names}, registries={"team": url}
    )
    lock(project.manifest, store=Store(project.folder / "other"))
    for number in range(ROUNDS):
        store = Store(project.folder / f"cold-{number}")
        timed(times, "s3 many", partial(pull, project.manifest, store=store, with_base=False))


def rows_of_s3(times: Times) -> list[Row]:
    """The table's rows."""
    seconds = {name: median(taken) for name, taken in times.items() if name.startswith("s3 ")}
    rows: list[Row] = []
    for way, what, goal in (("up", "publish", "1.0"), ("down", "pull", "1.2")):
        ours, peer = seconds[f"s3 {way} ours"], seconds[f"s3 {way} boto3"]
        rows.append(
            Row(
                f"{what} an adapter of 1 GB through S3",
                f"{ours:.1f} s",
                f"{peer / ours:.2f}x the speed of boto3's {way}load, "
                f"{(peer + seconds['s3 hash']) / ours:.2f}x with a SHA-256 of the file after it",
                f"at least {goal}x",
            )
        )
    many = seconds["s3 many"]
    rows.append(
        Row(
            f"pull {MANY} adapters from S3, empty cache",
            f"{many:.1f} s",
            f"{1000 * many / MANY:.0f} ms each",
            "",
        )
    )
    return rows


def _project(folder: Path, size: int) -> Project:
    """A base, and a LoRA of ``size`` bytes for it: the base is tiny, the rank is large."""
    folder.mkdir()
    project = Project(folder)
    project.base()
    rank = size // (4 * sum(map(sum, LLAMA_QV.values())))
    project.adapter("large")  # the config; its tensors are replaced
    config = lora_config(base_model_name_or_path=NAME, r=rank)
    (folder / "large" / "adapter_config.json").write_text(json.dumps(config))
    _write_large(folder / "large" / "adapter_model.safetensors", lora_tensors(LLAMA_QV, rank))
    return project


def _write_large(path: Path, tensors: Mapping[str, Any]) -> None:
    """A file of random values, without all of them in memory."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    block = random.Random(0)
    values = struct.pack("<1048576f", *(block.uniform(-0.1, 0.1) for _ in range(1 << 20)))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for start in range(0, at, len(values)):
            file.write(values[: at - start])


def _change(file: Path, number: int) -> None:
    """Another content, so that it is sent again."""
    with file.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(struct.pack("<f", 0.01 * (number + 1)))
    os.sync()


@contextmanager
def _environment(server: S3Server) -> Generator[None]:
    """The variables that let ``s3://`` mean this server."""
    mine = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=LARGE >> 20)
    parser.add_argument("--many", type=int, default=MANY)
    options = parser.parse_args()
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        s3_rounds(times, Path(temporary), options.megabytes << 20, options.many)
    for name, taken in times.items():
        print(f"{name}: {', '.join(f'{seconds:.2f} s' for seconds in taken)}", file=sys.stderr)
    print("| what | median | beside | goal |\n|---|---|---|---|")
    for row in rows_of_s3(times):
        print(f"| {row.what} | {row.value} | {row.ratio} | {row.goal} |")


if __name__ == "__main__":
    main()
