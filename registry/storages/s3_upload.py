"""Creates a large object on S3: in parts, several at once, completely or not at all.

The object appears by the last request, which S3 refuses where one of its name exists (If-None-Match
on CompleteMultipartUpload). s3fs can do that too, in rounds of ten parts of 50 MB; here parts are
smaller and follow one another without rounds, so less memory is needed, and no round waits for its
slowest part. A part goes by a plain request; where that fails, s3fs sends it, or says why not.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

from ..files.digests import PREFIX, Hasher
from ..sources.s3_plain import PlainError, PlainRoad

PART = 16 << 20
"""Bytes of a part; S3 allows 5 MiB to 5 GiB, and :data:`MOST` parts."""
MOST = 10_000
AT_ONCE = 6
"""Parts that are sent at once, and kept in memory."""


_TICK = 0.2
_PATIENCE = 5.0
"""Seconds that an upload has to end itself after Ctrl-C."""


class ChangedError(Exception):
    """The file does not have the digest that it should have; nothing was created."""


def upload(fs: Any, bucket: str, key: str, path: Path, size: int, digest: str | None) -> None:
    """Create an object with the bytes of a local file, through ``fs`` (s3fs).

    The file is hashed while it is sent. Raises :class:`ChangedError` where its SHA-256 is not
    ``digest`` (``sha256:HEX``), and what s3fs raises.
    """
    road, ended = PlainRoad(fs), threading.Event()

    async def act() -> None:
        try:
            await _upload(fs, road, bucket, key, path, size, digest)
        finally:
            ended.set()

    running = asyncio.run_coroutine_threadsafe(act(), fs.loop)
    try:
        while not wait([running], _TICK).done:  # some systems deliver Ctrl-C only between waits
            pass
        running.result()
    except BaseException:
        road.stop()
        running.cancel()
        ended.wait(_PATIENCE)  # Ctrl-C does not stop the loop: the parts are removed first
        raise


async def _upload(
    fs: Any, road: PlainRoad, bucket: str, key: str, path: Path, size: int, digest: str | None
) -> None:
    created = await fs._call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    which = {"Bucket": bucket, "Key": key, "UploadId": created["UploadId"]}
    try:
        tags = await _send(fs, road, which, path, size, digest)
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in sorted(tags.items())]
        await fs._call_s3(
            "complete_multipart_upload",
            **which,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
        )
    except BaseException:
        await _abort(fs, which)
        raise


async def _send(
    fs: Any, road: PlainRoad, which: dict[str, str], path: Path, size: int, digest: str | None
) -> dict[int, str]:
    """By number, the ETag of each part."""
    loop, tags, hasher = asyncio.get_running_loop(), dict[int, str](), hashlib.sha256()
    step = max(PART, -(-size // MOST))
    reading = asyncio.Lock()
    threads = ThreadPoolExecutor(AT_ONCE + 1, "adapterdock-s3")
    try:
        with path.open("rb", buffering=0) as file:
            numbers = iter(range(1, -(-size // step) + 1))

            async def work() -> None:
                buffer = memoryview(bytearray(step))
                while True:
                    async with reading:  # in order, for the hash
                        number = next(numbers, None)
                        if number is None:
                            return
                        body = await loop.run_in_executor(threads, _read, file, buffer, hasher)
                    tag = None
                    if road.open:
                        tag = await loop.run_in_executor(
                            threads, _by_road, road, which, number, body
                        )
                    if tag is None:
                        answer = await fs._call_s3(
                            "upload_part", PartNumber=number, Body=bytes(body), **which
                        )
                        tag = answer["ETag"]
                    tags[number] = tag

            await _all(work() for _ in range(AT_ONCE))
            more = await loop.run_in_executor(threads, file.read, 1)
    finally:
        road.stop()  # no part is on its way when the upload is ended
        await loop.run_in_executor(None, threads.shutdown)
    if digest is not None and (more or PREFIX + hasher.hexdigest() != digest):
        raise ChangedError
    return tags


def _by_road(road: PlainRoad, which: dict[str, str], number: int, body: memoryview) -> str | None:
    try:
        return road.put_part(which, number, body)
    except PlainError:
        return None


async def _all(works: Iterator[Any]) -> None:
    """The first failure ends the others, and is raised when they have ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(file: IO[bytes], buffer: memoryview, hasher: Hasher) -> memoryview:
    """The next bytes, hashed: as many as the buffer takes, fewer only at the end."""
    got = 0
    while got < len(buffer) and (count := file.readinto(buffer[got:])):  # type: ignore[attr-defined]
        got += count
    hasher.update(buffer[:got])
    return buffer[:got]


async def _abort(fs: Any, which: dict[str, str]) -> None:
    """The parts cost space until the upload is ended; S3's own rules may end it too."""
    try:
        await asyncio.shield(fs._call_s3("abort_multipart_upload", **which))
    except Exception:
        return
