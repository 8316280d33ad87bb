"""Servers that some pages talk to while ``docs/print.py`` runs them: those of the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.hub_server import HubServer

TESTS = Path(__file__).resolve().parents[1] / "tests"


@contextmanager
def serving(page: str, place: Path, folder: Path) -> Generator[dict[str, str]]:
    """The page's server, if it has one, until the page is printed: what its address is shown as.

    ``place`` is an empty folder for the server, ``folder`` the one that the page works in.
    """
    start = {
        "use-s3.md": _s3,
        "use-private-repositories.md": _hub,
        "mirror-the-hub.md": _open_hub,
    }.get(page)
    if start is None:
        yield {}
        return
    sys.path.insert(0, str(TESTS))
    os.environ.pop("HF_HUB_OFFLINE", None)  # it means every network
    with start(place, folder) as shown:
        yield shown


@contextmanager
def _s3(place: Path, folder: Path) -> Generator[dict[str, str]]:
    """A real service of the S3 protocol, with the bucket ``team-adapters``."""
    from support.s3_server import running_s3

    own = place / "seaweed"
    own.mkdir()
    with running_s3(own) as server:
        server.client.call_s3("create_bucket", Bucket="team-adapters")
        yield {server.endpoint: "https://storage.example"}


@contextmanager
def _hub(place: Path, folder: Path) -> Generator[dict[str, str]]:
    """A small Hub with a private and a gated repository, which one token opens."""
    with _hub_of(place, folder, ("tone", "legal")) as (server, shown):
        server.private.add("acme/tone")
        server.gated.add("acme/legal")
        server.tokens.add("hf_reader")
        yield shown


@contextmanager
def _open_hub(place: Path, folder: Path) -> Generator[dict[str, str]]:
    """A small Hub with public repositories, of a base and two adapters."""
    with _hub_of(place, folder, ("base", "tone", "legal")) as (_, shown):
        yield shown


@contextmanager
def _hub_of(
    place: Path, folder: Path, names: tuple[str, ...]
) -> Generator[tuple[HubServer, dict[str, str]]]:
    import pytest
    from support.hub_server import HubServer, point_client_at

    server = HubServer()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("HF_TOKEN", raising=False)
            point_client_at(patch, server.endpoint, place / "hf")
            for name in names:
                files = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
                server.commit(f"acme/{name}", files)
            yield (
                server,
                {
                    server.endpoint: "https://huggingface.co",
                    f"127.0.0.1:{server.port}": "huggingface.co",
                    str(place / "hf"): "~/.cache/huggingface",
                },
            )
    finally:
        server.close()
