"""A folder in an S3 bucket (AWS or any service with its protocol), through s3fs.

Files of a versioned bucket are pinned by VersionId, so that the old version is still read after
a change. Elsewhere the ETag pins, and each read sends ``If-Match``, so that no byte of another
object is read (S3 API: GetObject, ListObjectVersions, ListObjectsV2).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...manifests.bounds import FOLDER_FILES
from ...manifests.findings import sources as codes
from ...manifests.findings.errors import AdapterdockError
from ..files.digests import Hasher
from ..files.facts import FileFact
from .failures import service_code_of, status_of
from .folder import OnBytes
from .parts import PART, receive_in_parts
from .ranges import range_header
from .remote import RemoteFolder
from .request import SourceRequest
from .s3_plain import PlainError, PlainRoad

_LARGE = 1 << 20
"""Bytes of a body that is worth a signed URL."""
_VERSIONID = "versionid:"
_ETAG = "etag:"
_NO_VERSIONS = frozenset({"AccessDenied", "NotImplemented", "MethodNotAllowed", "501", "405"})


class S3Folder(RemoteFolder):
    """A folder in a bucket. ``FileFact.version`` is ``versionid:...`` or ``etag:...``.

    VersionIds come from ListObjectVersions. Where that is forbidden or missing, reading an old
    version usually is too, and the ETag pins.
    """

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        self._plain: PlainRoad = PlainRoad(self._fs)

    def _list(self) -> Iterator[FileFact]:
        bucket, prefix = self._place("")
        found = False
        for key, fact in self._objects(bucket, prefix):
            found = True
            if key.endswith("/"):  # a marker that consoles make for an empty folder
                continue
            # SeaweedFS lists an empty object without its ETag; HEAD has it.
            now = fact if fact.version != _ETAG else self._look(FileFact(fact.path, fact.size))
            if now is not None:
                yield now
        if not found:
            if self._root.strip("/") != bucket and self._head(self._root, None) is not None:
                raise self._not_a_folder()
            raise self._missing()

    def _look(self, pin: FileFact) -> FileFact | None:
        answer = self._head(self._key(pin.path), pin.version)
        if answer is None:
            return None
        version = pin.version or ""
        if not version.startswith(_VERSIONID):
            version = _pin_of(None if version else answer.get("VersionId"), answer["ETag"])
        return FileFact(pin.path, answer["ContentLength"], version=version)

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        bucket, key = self._place(fact.path)
        version = fact.version or ""
        if stop - start >= _LARGE and self._plain.open:
            try:
                yield from self._plainly(fact, start, stop, bucket, key, version)
            except PlainError:  # the ordinary way, or its error
                pass
            else:
                return
        if version.startswith(_VERSIONID):
            pin = {"VersionId": version.removeprefix(_VERSIONID)}
        else:
            pin = {"IfMatch": version.removeprefix(_ETAG)} if version else {}
        try:
            answer = self._fs.call_s3(
                "get_object", Bucket=bucket, Key=key, Range=range_header(start, stop), **pin
            )
        except FileNotFoundError as error:
            if service_code_of(error) in ("NoSuchKey", "404"):
                raise self._changed(fact.path, "deleted", fact.version) from error
            raise
        body = answer["Body"]

        headers = {"Content-Range": answer.get("ContentRange", "")}
        if "ContentLength" in answer:
            headers["Content-Length"] = str(answer["ContentLength"])
        try:
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            yield from self._range(fact, start, stop, status, headers, self._chunks(body.read))
        finally:
            body.close()

    def _plainly(
        self, fact: FileFact, start: int, stop: int, bucket: str, key: str, version: str
    ) -> Generator[bytes]:
        """Raises :class:`PlainError` before the first byte only."""
        pin = {"If-Match": version.removeprefix(_ETAG)} if version.startswith(_ETAG) else {}
        kept = version.removeprefix(_VERSIONID) if version.startswith(_VERSIONID) else None
        headers = {"Range": range_header(start, stop), **pin}
        with self._plain.get(bucket, key, kept, headers) as (status, answered, body):
            yield from self._range(fact, start, stop, status, answered, body)

    def _save(
        self,
        fact: FileFact,
        into: Path,
        on_bytes: OnBytes | None,
        hasher: Hasher | None = None,
    ) -> Path:
        if fact.size < 2 * PART:
            return super()._save(fact, into, on_bytes, hasher)
        try:
            into.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(into, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise self._unwritable(fact.path, error) from error
        try:
            receive_in_parts(
                lambda start, stop: self._transfer(fact, start, stop),
                fact.size,
                file,
                on_bytes,
                hasher,
            )
        except BaseException as error:
            into.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, AdapterdockError):
                raise self._unwritable(fact.path, error) from error
            raise
        finally:
            os.close(file)
        return into

    def _objects(self, bucket: str, prefix: str) -> Iterator[tuple[str, FileFact]]:
        """Newest objects. Names and ETags come from ListObjectsV2: SeaweedFS lists other ETags
        with versions, which its ``If-Match`` does not accept."""
        versions = self._newest_versions(bucket, prefix)
        more: dict[str, str] = {}
        while True:
            page = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            for row in page.get("Contents", ()):
                key = row["Key"]
                version_id, size = versions.get(key, (None, row["Size"]))
                pin = _pin_of(version_id, row["ETag"])
                yield key, FileFact(key[len(prefix) :], size, version=pin)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _newest_versions(self, bucket: str, prefix: str) -> dict[str, tuple[str, int]]:
        """Key to VersionId and size, of the newest objects in a versioned bucket."""
        found: dict[str, tuple[str, int]] = {}
        more: dict[str, str] = {}
        seen = 0
        while seen <= 10 * FOLDER_FILES:
            try:
                page = self._fs.call_s3(
                    "list_object_versions", Bucket=bucket, Prefix=prefix, **more
                )
            except Exception as error:
                if service_code_of(error) in _NO_VERSIONS or status_of(error) == 501:
                    return {}
                raise
            for row in page.get("Versions", ()):
                seen += 1
                if row.get("IsLatest") and row.get("VersionId") not in (None, "null"):
                    found[row["Key"]] = (row["VersionId"], row["Size"])
            if not page.get("IsTruncated"):
                return found
            more = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                more["VersionIdMarker"] = page["NextVersionIdMarker"]
        raise self._error(
            codes.TOO_MANY_FILES,
            f"{self._shown()} has more than {10 * FOLDER_FILES} versions of objects",
        )

    def _head(self, place: str, version: str | None) -> dict[str, Any] | None:
        """The answer to HEAD of an object, or ``None`` if it (or its version) is gone."""
        bucket, key, _ = self._fs.split_path(place)
        pin: dict[str, str] = {}
        if version is not None and version.startswith(_VERSIONID):
            pin = {"VersionId": version.removeprefix(_VERSIONID)}
        try:
            return self._fs.call_s3("head_object", Bucket=bucket, Key=key, **pin)
        except FileNotFoundError as error:
            if service_code_of(error) == "NoSuchBucket":
                raise
            return None
        except OSError as error:
            # AWS answers 400 to an invalid VersionId, 405 to that of a deletion.
            if pin and status_of(error) in (400, 405):
                return None
            raise

    def _host(self) -> str:
        client = getattr(self._fs, "_s3", None)
        return urlsplit(client.meta.endpoint_url).netloc if client is not None else super()._host()

    def _place(self, path: str) -> tuple[str, str]:
        bucket, key, _ = self._fs.split_path(self._key(path))
        return bucket, key


def _pin_of(version_id: str | None, etag: str) -> str:
    if version_id and version_id != "null":
        return _VERSIONID + version_id
    return _ETAG + etag.strip('"')


open_folder = S3Folder
