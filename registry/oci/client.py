"""A client of OCI registries: push an artifact, pull it again, every byte verified.

See https://github.com/opencontainers/distribution-spec (v1.1). A tag can be moved by whoever may
push, so what is pinned is a digest; uniqueness is decided by the folder of a registry, not here.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import urlencode

from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings import store as store_codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.oci_reference import OciReference, parse_reference
from ..files.digests import CHUNK, is_digest, sha256_bytes
from ..files.disk import guarded
from ..sources.encodings import BadEncodingError
from ..sources.pace import Pace, SlowError
from ..sources.ranges import BadRangeError, only_range, range_header
from ..sources.relay import relayed
from .artifact import Artifact, OnBytes, signatures_tag
from .content import Checked, removed_on_failure
from .http import Answer, OciConnection
from .login import Login
from .manifest import (
    INDEX_TYPE,
    MANIFEST_BYTES,
    MANIFEST_TYPE,
    Descriptor,
    InvalidManifestError,
    Manifest,
    read_manifest,
)

COMMIT_SECONDS = 120.0
"""How long a registry may take to verify what it got, before it answers."""


def reference_of(text: str, where: Where = Where()) -> OciReference:  # noqa: B008 - frozen
    """The reference that ``text`` is. Raises :class:`SourceError` (AD890)."""
    found = parse_reference(text)
    if found is None:
        raise SourceError(
            codes.OCI_REFERENCE_INVALID.finding(
                f"Invalid OCI reference {text[:200]!r}",
                where,
                expected="oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:HEX",
            )
        )
    return found


class OciClient:
    """One repository of an OCI registry. Usable from several threads, but for ``push``.

    Args:
        reference: The repository; its tag and digest do not matter here.
        login: The user's (see :func:`login_for`), or ``None``: anonymous.
        push: Whether to ask for the right to push from the start; some registries hide from others
            what does not exist yet.
        offline: Whether the network is off.
        permits: Whether a URL may be redirected to; ``None``: any.
        where: The place in a manifest that findings name.

    Every method raises :class:`SourceError` (``OfflineError`` where it needs the network) where the
    registry refuses, is too slow or answers wrongly, and :class:`IntegrityError` for other bytes
    than a digest says.
    """

    def __init__(
        self,
        reference: OciReference,
        login: Login | None = None,
        *,
        push: bool = False,
        offline: bool = False,
        permits: Callable[[str], bool] | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        self._http: OciConnection = OciConnection(
            reference, login, offline=offline, permits=permits, where=where
        )
        self._http.push = push
        self._api: str = reference.api
        self._repository: str = str(OciReference(reference.host, reference.repository))
        self._where: Where = where

    def manifest(self, tag: str) -> Manifest:
        """The manifest with this tag or digest."""
        raw = self._manifest_bytes(tag)
        if raw is None:
            raise self._http.error(
                source_codes.SOURCE_MISSING,
                f"{self._repository} has no artifact {tag[:200]!r}",
            )
        return self._parsed(raw, tag)

    def signatures(self, digest: str) -> Manifest | None:
        """The manifest of the signatures of the artifact with this digest, or ``None``."""
        tag = signatures_tag(digest)
        raw = self._manifest_bytes(tag)
        return None if raw is None else self._parsed(raw, tag)

    def read(self, descriptor: Descriptor) -> bytes:
        """See :class:`Blobs`."""
        if descriptor.size > MANIFEST_BYTES:
            self._invalid(f"{descriptor.digest} has more than {MANIFEST_BYTES} bytes")
        content = io.BytesIO()
        self._transfer(descriptor, content, None)
        return content.getvalue()

    def copy(self, descriptor: Descriptor, into: Path, on_bytes: OnBytes | None = None) -> None:
        """See :class:`Blobs`. A transfer that breaks is continued."""
        with removed_on_failure(into), guarded(into, self._where), into.open("xb") as file:
            self._transfer(descriptor, file, on_bytes)

    def push(self, artifact: Artifact, tag: str | None, on_bytes: OnBytes | None = None) -> str:
        """Push an artifact: its contents, where they are not there, then its manifest.

        Args:
            artifact: Each content is verified while it is sent.
            tag: Is moved to the artifact; ``None``: it gets none.
            on_bytes: Gets the number of bytes after each read, also of contents that are there.

        Returns:
            The digest that pins the artifact.
        """
        self._http.push = True
        manifest = artifact.manifest
        for one in manifest.contents:
            content = artifact.contents.get(one.digest)
            if content is None:
                raise IntegrityError(
                    store_codes.OBJECT_MISSING.finding(
                        f"{one.title or one.digest} is missing", self._where
                    )
                )
            if not self._has(one):
                self._http.patiently(
                    lambda one=one, content=content: self._upload(one, content, on_bytes)
                )
            elif on_bytes is not None:
                on_bytes(one.size)
        self._http.patiently(lambda: self._put_manifest(manifest, tag or manifest.digest))
        return manifest.digest

    def _manifest_bytes(self, tag: str) -> bytes | None:
        """Verified against a digest, where ``tag`` is one or the registry names one."""
        url = f"{self._api}/manifests/{tag}"
        headers = {"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"}

        def get() -> Answer:
            answer = self._http.ask("GET", url, headers, limit=MANIFEST_BYTES)
            if answer.status in (200, 404):
                return answer
            raise self._refused(answer, f"the manifest {tag}")

        answer = self._http.patiently(get)
        if answer.status == 404:
            return None
        if len(answer.body) > MANIFEST_BYTES:
            self._invalid(f"the manifest {tag} has more than {MANIFEST_BYTES} bytes")
        expected = tag if is_digest(tag) else answer.headers.get("Docker-Content-Digest", "")
        found = sha256_bytes(answer.body)
        if is_digest(expected) and found != expected:
            raise IntegrityError(
                store_codes.WRONG_DIGEST.finding(
                    f"{self._repository}: the manifest {tag} has another digest",
                    self._where,
                    found=found,
                    expected=expected,
                )
            )
        return answer.body

    def _parsed(self, raw: bytes, tag: str) -> Manifest:
        try:
            return read_manifest(raw)
        except InvalidManifestError as error:
            self._invalid(f"the manifest {tag}: {error}")

    def _transfer(self, descriptor: Descriptor, into: IO[bytes], on_bytes: OnBytes | None) -> None:
        check = Checked(descriptor)
        pace = Pace(self._http.limits, descriptor.size)
        what = descriptor.title or descriptor.digest

        def attempt() -> None:
            nonlocal check
            try:
                for chunk in self._chunks(descriptor, check.size, pace):
                    check.add(chunk)
                    into.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
            except (BadRangeError, BadEncodingError) as error:
                resumed, check = check.size, Checked(descriptor)
                into.seek(0)
                into.truncate()
                code = source_codes.TRUNCATED if resumed else source_codes.BAD_ANSWER
                message = f"{self._http.reference.host} answered with other bytes of {what}"
                raise self._http.error(code, message, found=str(error)) from error
            except SlowError as error:
                raise self._http.slow(error) from error
            if check.size < descriptor.size:
                raise self._http.error(
                    source_codes.TRUNCATED,
                    f"{self._http.reference.host} sent only a part of {what}",
                    found=f"{check.size} bytes",
                    expected=f"{descriptor.size} bytes",
                )

        self._http.patiently(attempt)
        check.finish()

    def stream(
        self, descriptor: Descriptor, start: int, stop: int, received: OnBytes
    ) -> Generator[bytes]:
        """The bytes ``start <= i < stop`` of a content as they come, not verified. The caller
        watches the time. ``received`` gets the number of bytes of each piece.

        Raises :class:`BadRangeError` and :class:`BadEncodingError` too.
        """
        url, size = f"{self._api}/blobs/{descriptor.digest}", descriptor.size
        headers = {"Range": range_header(start, stop)} if (start, stop) != (0, size) else {}
        with self._http.open("GET", url, headers) as response:
            if response.status_code not in (200, 206):
                body = next(response.iter_raw(), b"")
                what = descriptor.title or descriptor.digest
                raise self._http.refused(response.status_code, response.headers, body, what)
            yield from only_range(
                response.status_code,
                response.headers,
                response.iter_raw(),
                start=start,
                stop=stop,
                size=size,
                received=received,
            )

    def _chunks(self, descriptor: Descriptor, start: int, pace: Pace) -> Generator[bytes]:
        def produce(put: Callable[[bytes], None]) -> None:
            with closing(self.stream(descriptor, start, descriptor.size, lambda _: None)) as pieces:
                for chunk in pieces:
                    put(chunk)

        with closing(relayed(produce, len, pace)) as arriving:
            for chunk in arriving:
                if chunk is not None:
                    yield chunk

    def _has(self, descriptor: Descriptor) -> bool:
        url = f"{self._api}/blobs/{descriptor.digest}"

        def head() -> bool:
            answer = self._http.ask("HEAD", url, {})
            if answer.status not in (200, 404):
                raise self._refused(answer, descriptor.title or descriptor.digest)
            return answer.status == 200

        return self._http.patiently(head)

    def _upload(
        self, descriptor: Descriptor, content: bytes | Path, on_bytes: OnBytes | None
    ) -> None:
        what = descriptor.title or descriptor.digest
        started = self._http.ask("POST", f"{self._api}/blobs/uploads/", {"Content-Length": "0"})
        if started.status != 202:
            raise self._refused(started, what, push=True)
        place = self._http.place(started.url, started.headers.get("Location", ""))
        url = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': descriptor.digest})}"
        answer = self._http.ask(
            "PUT",
            url,
            {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(descriptor.size),
            },
            body=lambda: self._pieces(descriptor, content, on_bytes),
            seconds=self._http.limits.time_for(descriptor.size) + COMMIT_SECONDS,
        )
        if answer.status != 201:
            raise self._refused(answer, what, push=True)

    def _pieces(
        self, descriptor: Descriptor, content: bytes | Path, on_bytes: OnBytes | None
    ) -> Generator[bytes]:
        """The bytes to send. The last piece is held back until all are verified, so that a registry
        never gets a content that is complete and wrong."""
        check = Checked(descriptor)
        held = b""
        path = content if isinstance(content, Path) else Path(descriptor.title or "content")
        with guarded(path, self._where):
            file = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
        pace = Pace(self._http.limits, descriptor.size)
        with file:
            while True:
                with guarded(path, self._where):
                    chunk = file.read(CHUNK)
                if not chunk:
                    break
                check.add(chunk)
                began = time.monotonic()
                if held:
                    yield held
                pace.add(time.monotonic() - began, len(held))
                held = chunk
                if on_bytes is not None:
                    on_bytes(len(chunk))
        check.finish()
        yield held

    def _put_manifest(self, manifest: Manifest, tag: str) -> None:
        size = str(len(manifest.raw))
        answer = self._http.ask(
            "PUT",
            f"{self._api}/manifests/{tag}",
            {"Content-Type": MANIFEST_TYPE, "Content-Length": size},
            body=lambda: [manifest.raw],
            seconds=COMMIT_SECONDS,
        )
        if answer.status != 201:
            raise self._refused(answer, f"the manifest {tag}", push=True)
        stored = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if stored != manifest.digest:
            raise self._http.error(
                codes.OCI_PUSH_REFUSED,
                f"{self._http.reference.host} stored another manifest than the one that was sent",
                found=stored[:100],
                expected=manifest.digest,
            )

    def _refused(self, answer: Answer, what: str, *, push: bool = False) -> SourceError:
        error = self._http.refused(answer.status, answer.headers, answer.body, what)
        ours = (source_codes.BAD_ANSWER.id, source_codes.FILE_MISSING.id)
        if push and error.code in ours:
            return self._http.error(
                codes.OCI_PUSH_REFUSED, error.findings[0].message, found=error.findings[0].found
            )
        return error

    def _invalid(self, why: str) -> NoReturn:
        raise self._http.error(
            codes.OCI_ARTIFACT_INVALID, f"Cannot use the artifact of {self._repository}: {why}"
        )
