"""Replace the text of a manifest: all of it or nothing, and only if nobody else changed it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .findings import usage as codes
from .findings.errors import UsageError
from .findings.finding import Where
from .owner import left_beside, made_beside


def rewrite(path: Path, before: bytes, after: bytes) -> None:
    """Replace the file, which has the content ``before``, by rename. A link stays a link.

    Raises :class:`UsageError` if it has another content now, or cannot be written. A file that is
    read-only cannot, although its folder would allow the rename.
    """
    where = Where(file=str(path))
    try:
        real = path.resolve(strict=True)
        if not os.access(real, os.W_OK):
            raise UsageError(
                codes.UNWRITABLE.finding(
                    "The manifest is read-only", where, hint="Make it writable first."
                )
            )
        for left in left_beside(real, "", ".yaml"):
            left.unlink(missing_ok=True)
        temporary = made_beside(real, "", ".yaml")
        try:
            with temporary.open("xb") as stream:
                stream.write(after)
            shutil.copymode(real, temporary)
            if real.read_bytes() != before:
                raise UsageError(
                    codes.CHANGED_MEANWHILE.finding("The manifest has changed meanwhile", where)
                )
            temporary.replace(real)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            codes.UNWRITABLE.finding("Cannot write the manifest", where, found=error.strerror)
        ) from error
