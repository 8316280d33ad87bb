"""Upload an adapter's files to a repository on the Hub: one commit, with its model card.

The repository, and a branch that is named, are made first where there are none. Nothing else
changes before the commit, which is one request: it has all files or none, and it is refused where
somebody else committed after the card was read, so that no card is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..manifests.findings import sources, usage
from ..manifests.findings.errors import AdapterdockError, SourceError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.language.source import Source
from .checks.recorded_base import is_hub_id
from .hub_refusals import refusal
from .sources.failures import source_error, status_of
from .sources.hub import HubFolder
from .sources.hub_http import CLIENT
from .sources.hub_settings import HubSettings
from .sources.open import is_offline
from .sources.request import SourceRequest

CARD = "README.md"
_TRIES = 3
_OVERTAKEN = frozenset({409, 412})
"""The statuses of a commit whose parent is not the branch's last commit any more."""


@dataclass(frozen=True)
class HubUpload:
    """Where files are uploaded, and what is said of the commit.

    Args:
        repo_id: ``org/name``, or ``name`` for the user's own.
        message: The commit's.
        description: More about it.
        private: Whether a new repository is private; ``None`` is the Hub's default. A repository
            that exists stays as it is.
        token: ``None`` is the one that the client finds, ``True`` too, ``False`` none.
        revision: The branch; ``None`` is the main one.
        create_pr: Whether the commit is a pull request.
    """

    repo_id: str
    message: str
    description: str | None = None
    private: bool | None = None
    token: str | bool | None = None
    revision: str | None = None
    create_pr: bool = False


def upload(
    files: Mapping[str, bytes],
    card: Callable[[str, str | None], str],
    wanted: HubUpload,
    where: Where,
    *,
    offline: bool = False,
) -> str:
    """Upload ``files`` by path, and the card that ``card`` makes of the repository's full name and
    the text that its card has now (``None`` without one).

    Returns the URL of the commit or of the pull request. Raises :class:`UsageError` for an invalid
    name, and :class:`SourceError` for all that the Hub refuses.
    """
    _check_name(wanted.repo_id, where)
    if offline or is_offline():
        raise source_error(
            sources.OFFLINE,
            f"Cannot upload to {wanted.repo_id}: the network is turned off",
            where,
            hint="Remove --offline (offline=True), and unset ADAPTERDOCK_OFFLINE, HF_HUB_OFFLINE "
            "and TRANSFORMERS_OFFLINE.",
        )
    options = {} if wanted.token is None else {"token": wanted.token}
    request = SourceRequest(Source.parse("hf://org/name"), options=options, where=where)
    settings = HubSettings.of(request)
    try:
        name = _made(wanted, settings)
        for attempt in range(1, _TRIES + 1):
            try:
                return _commit(name, files, card, wanted, settings, where)
            except Exception as error:
                if status_of(error) not in _OVERTAKEN or attempt == _TRIES:
                    raise
        raise AssertionError("the last try returns or raises")
    except AdapterdockError:
        raise
    except Exception as error:
        raise refusal(error, wanted.repo_id, settings, where) from error


def _check_name(repo_id: str, where: Where) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        valid = is_hub_id(repo_id)
    except HFValidationError:
        valid = False
    if not valid:
        raise UsageError(
            usage.PEFT_OPTION.finding(
                f"Invalid repository {repo_id!r}",
                where,
                found=repo_id,
                expected="org/name, or the name of one of your own",
                hint="Write letters, digits, '-', '_' and '.', as in the page's address after "
                "huggingface.co/.",
            )
        )


def _api(wanted: HubUpload, settings: HubSettings) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=settings.endpoint, token=wanted.token, **CLIENT)


def _made(wanted: HubUpload, settings: HubSettings) -> str:
    """The full name of the repository, which exists then, as its branch does."""
    api = _api(wanted, settings)
    url = api.create_repo(wanted.repo_id, private=wanted.private, exist_ok=True)
    name = wanted.repo_id if "/" in wanted.repo_id else str(url.repo_id)
    branch = wanted.revision
    if branch is None or branch == "main" or branch.startswith("refs/"):
        return name
    try:
        api.create_branch(name, branch=branch, exist_ok=True)
    except Exception as error:
        # who may only propose may not make a branch: the commit says whether it is there
        if not (wanted.create_pr and status_of(error) == 403):
            raise
    return name


def _commit(
    name: str,
    files: Mapping[str, bytes],
    card: Callable[[str, str | None], str],
    wanted: HubUpload,
    settings: HubSettings,
    where: Where,
) -> str:
    from huggingface_hub import CommitOperationAdd

    options = {} if wanted.token is None else {"token": wanted.token}
    now = HubFolder(
        SourceRequest(
            Source.parse(f"hf://{name}"), options=options, revision=wanted.revision, where=where
        )
    )
    try:
        text = _card(name, now.read(CARD) if CARD in now.files() else None, card, where)
    except SourceError as error:
        if error.code != sources.HUB_REVISION_NOT_FOUND.id:
            raise
        raise source_error(
            sources.HUB_REVISION_NOT_FOUND,
            f"Cannot upload to {name}: it has no branch {wanted.revision!r}",
            where,
            hint="Check revision=. Without it, the main branch is used. Who may not write to a "
            "repository cannot make a branch in it.",
        ) from error
    operations = [
        CommitOperationAdd(path, data) for path, data in {**files, CARD: text.encode()}.items()
    ]
    api = _api(wanted, settings)
    at = {"revision": wanted.revision, "create_pr": wanted.create_pr}
    api.preupload_lfs_files(name, operations, **at, free_memory=False)
    ignored = [one.path_in_repo for one in operations if getattr(one, "_should_ignore", False)]
    if ignored:  # the client would leave them out, and succeed
        raise _failed(
            f"Cannot upload to {name}: its .gitignore leaves out files of the adapter",
            where,
            found=", ".join(ignored),
            hint="Remove the pattern from .gitignore in the repository.",
        )
    made = api.create_commit(
        name,
        operations,
        commit_message=wanted.message,
        commit_description=wanted.description,
        parent_commit=now.revision,
        **at,
    )
    return str(made.pr_url or made.commit_url)


def _card(
    name: str, before: bytes | None, card: Callable[[str, str | None], str], where: Where
) -> str:
    try:
        return card(name, None if before is None else before.decode())
    except ValueError as error:
        raise _failed(
            f"Cannot upload to {name}: its model card has invalid metadata",
            where,
            found=str(error),
            expected="UTF-8, with a YAML mapping between the two lines '---' at the top",
            hint=f"Correct {CARD} in the repository.",
        ) from error


def _failed(message: str, where: Where, **details: Any) -> SourceError:
    return source_error(usage.HUB_UPLOAD, message, where, **details)
