"""``oci://`` and ``oci-archive:`` sources, opened as a manifest declares them."""

from __future__ import annotations

from pathlib import Path

from ..locks.state import facts_of
from ..oci.folder import ArchiveFolder, OciFolder, RegistryFolder
from ..sources.open import is_offline
from ..sources.request import SourceRequest
from . import policy as policy_checks
from .opening import Opening


def open_folder(opening: Opening) -> OciFolder:
    """The folder of an artifact, held to the pins of the lock. The network (or the archive) is
    first used by the folder's methods.

    Raises:
        SourceError: It takes storage options, or needs the network that is off (``OfflineError``).
    """
    pin = opening.pin
    base = opening.file is not None and opening.source == opening.file.manifest.base.model
    lists = policy_checks.lists_for(opening.policies, base=base)
    directory = Path.cwd() if opening.file is None else opening.file.directory
    request = SourceRequest(
        opening.source,
        opening.directory or directory,
        opening.options,
        opening.offline or is_offline(),
        None if pin is None else pin.revision,
        None if pin is None else facts_of(pin.files),
        (lambda url: policy_checks.permits(lists, url)) if lists else None,
        where=opening.where,
    )
    if opening.source.is_archive:
        return ArchiveFolder(request)
    request.need_network()
    return RegistryFolder(request)
