"""The registries that are open in one command or call: each of them is opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..files.once import Once

if TYPE_CHECKING:
    from ...manifests.language.source import Source
    from ..catalogue.catalogue import Catalogue, Listing, Seen
    from ..sources.opened import OpenedFolder


@dataclass(frozen=True)
class OpenRegistry:
    """A registry that is open.

    Attributes:
        catalogue: Lists each name once.
        place: Where it is, absolute or a URL.
        registries: Those of the command.
        contents: Returns its blobs, by the hex digits of their digests.
    """

    catalogue: Catalogue
    place: Source
    registries: OpenRegistries
    contents: Callable[[], OpenedFolder]

    def listing(self, name: str) -> Listing:
        """Everything of one name but the contents, listed once."""
        return self.catalogue.listing(name)

    def check_journal(self, seen: Seen) -> None:
        """See :meth:`Catalogue.check_journal`; each line is read once."""
        key = ("journal", self.catalogue.id, self.place, seen)
        self.registries.once(key, lambda: self.catalogue.check_journal(seen))

    def journal_line(self) -> Seen | None:
        """The last line of the journal, found once."""
        key = ("journal", self.catalogue.id, self.place, None)
        return self.registries.once(key, self.catalogue.journal_line)


class OpenRegistries(Once):
    """What was read of registries in one command, so that it is read once. Not kept for longer:
    others publish and promote meanwhile."""
