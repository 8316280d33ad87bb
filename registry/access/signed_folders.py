"""Whether an adapter's folder is signed as the policies in force require (``model.sig``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ...manifests.findings import policy as codes
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Policy
from ..files.digests import PREFIX, folder_digest
from ..files.disk import replace_file
from ..files.facts import FileFact
from ..signatures.keys import distinct, load_public_key
from ..signatures.trust import Requirement, decide, requirement
from ..sources.folder import Folder
from .model_signature import FILE, LIMIT, InvalidModelSignatureError, read_model_signature

FOLDER = "model-signatures"
"""In the cache: signatures that were verified, by the digest of the files."""


def check_signed(
    policies: Iterable[Policy],
    files: Iterable[FileFact],
    open_folder: Callable[[], Folder],
    cache: Path | None,
    where: Where,
    *,
    complete: bool = True,
) -> list[Finding]:
    """What is missing of the signatures that ``require_model_signature`` asks for.

    Args:
        policies: Those in force; each must be satisfied.
        files: Those in use.
        open_folder: The adapter's folder, with all its files. It is not called where the cache has
            a signature that is enough.
        cache: The folder of the cache, for use without a network.
        where: The place in the manifest.
        complete: Whether all digests are known by now; else those that are not are not compared.
    """
    rules = [one.require_model_signature for one in policies]
    wanted = [rule for rule in rules if rule is not None]
    if not wanted:
        return []
    try:
        required = [
            requirement(
                [load_public_key(text, Path.cwd(), where) for text in rule.keys],
                rule.threshold,
                where,
            )
            for rule in wanted
        ]
        facts = tuple(files)
        kept = None if cache is None else _kept(facts, cache)
        if kept is not None:
            with suppress(OSError):
                if not _check(_read_file(kept), facts, required, where, complete):
                    return []
        raw = _read(open_folder())
        findings = _check(raw, facts, required, where, complete)
        if kept is not None and raw is not None and not findings:
            _keep(kept, raw)
    except AdapterdockError as error:
        return [*error.findings]
    return findings


def _check(
    raw: bytes | None,
    files: Sequence[FileFact],
    required: Sequence[Requirement],
    where: Where,
    complete: bool,
) -> list[Finding]:
    keys = distinct(key for one in required for key in one.keys)
    try:
        if raw is None:
            raise InvalidModelSignatureError("there is none")
        signed = read_model_signature(raw, keys)
        if (problem := signed.problem(files, complete=complete)) is not None:
            raise InvalidModelSignatureError(problem)
    except InvalidModelSignatureError as error:
        return [
            codes.MODEL_SIGNATURE.finding(
                f"This adapter has no {FILE} that counts: {error}",
                where,
                expected=f"a {FILE} by " + ", ".join(key.name[:200] for key in keys[:3]),
            )
        ]
    missing = (decide(FILE, one, signed.keys) for one in required)
    return [finding for finding in missing if finding is not None]


def _read(folder: Folder) -> bytes | None:
    """The signature in a folder; one that is too large is cut, and invalid."""
    fact = folder.files().get(FILE)
    if fact is None:
        return None
    return folder.read(FILE, 0, min(fact.size, LIMIT + 1))


def _kept(files: Sequence[FileFact], cache: Path) -> Path | None:
    if any(file.sha256 is None for file in files):
        return None
    return cache / FOLDER / folder_digest(files).removeprefix(PREFIX)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMIT + 1)


def _keep(path: Path, raw: bytes) -> None:
    """A cache that cannot be written keeps nothing."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, raw)
