"""Codes AD6xx: the store, and bytes that are not what they should be."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NO_CACHE = Code(
    "AD399",
    "no-cache",
    Severity.ERROR,
    "This folder is not a cache of adapterdock.",
    "Set ADAPTERDOCK_CACHE to the cache's own folder.",
)
CACHE_NOT_A_FOLDER = Code(
    "AD601",
    "cache-not-a-folder",
    Severity.ERROR,
    "The cache's path, or a part of it, is a file.",
    "Remove that file, or set ADAPTERDOCK_CACHE to a folder.",
)
NO_SPACE = Code(
    "AD602",
    "no-space",
    Severity.ERROR,
    "The disk (or its quota) has no room for a file that must be fetched.",
    "Free some space (`adapterdock cache gc --max-size 5GiB` removes the least recently used "
    "files), or set ADAPTERDOCK_CACHE to a folder on a larger disk.",
)
CACHE_READ_ONLY = Code(
    "AD603",
    "cache-read-only",
    Severity.ERROR,
    "The cache is on a read-only file system.",
    "Pull on the machine that makes the cache, or set ADAPTERDOCK_CACHE to a folder that can be "
    "written.",
)
CACHE_PERMISSION = Code(
    "AD604",
    "cache-permission",
    Severity.ERROR,
    "This user has no permission to read or write a file.",
    "Change the owner of the folder (chown -R), or set ADAPTERDOCK_CACHE to another folder.",
)
PATH_TOO_LONG = Code(
    "AD605",
    "path-too-long",
    Severity.ERROR,
    "A path is longer than the file system allows.",
    "Set ADAPTERDOCK_CACHE to a folder with a shorter path, or shorten the file's name at its "
    "source.",
)
CACHE_IO = Code(
    "AD606",
    "cache-io",
    Severity.ERROR,
    "The operating system could not read or write a file.",
    "Check the disk or mount. Then run `adapterdock cache verify`, and pull again.",
)
CACHE_UNKNOWN_PLACE = Code(
    "AD607",
    "cache-unknown-place",
    Severity.ERROR,
    "There is no home folder, so the cache has no default place.",
    "Set ADAPTERDOCK_CACHE to a folder.",
)
WRONG_DIGEST = Code(
    "AD610",
    "wrong-digest",
    Severity.ERROR,
    "A file's content does not match its digest.",
    "Pull again, which repairs damage during the transfer. If it happens again, the source has "
    "changed: check it with `adapterdock lock --diff`, and accept it with `adapterdock lock "
    "--upgrade NAME` only if you trust it.",
)
WRONG_SIZE = Code(
    "AD611",
    "wrong-size",
    Severity.ERROR,
    "A file has more or fewer bytes than it should have.",
    "Pull again. If it happens again, compare the file at the source with its lock: `adapterdock "
    "lock --diff`.",
)
NOT_AS_LOCKED = Code(
    "AD612",
    "not-as-locked",
    Severity.ERROR,
    "A file at its source is not the one that was locked.",
    "See what changed with `adapterdock lock --diff`. Accept it with `adapterdock lock --upgrade "
    "NAME`, or restore the file at its source.",
)
DAMAGED_HUB_FILE = Code(
    "AD613",
    "damaged-hub-file",
    Severity.ERROR,
    "A file in the Hub's own cache on this machine is damaged.",
    "Pull once while online. If it happens again, delete the blob that the message names.",
)
LOCAL_FILE_CHANGED = Code(
    "AD614",
    "local-file-changed",
    Severity.ERROR,
    "A file in a local folder is not the one that was locked.",
    "Restore the file, or accept it with `adapterdock lock --upgrade NAME`. For a folder that "
    "keeps changing, write `mutable: true` in the manifest.",
)
FILE_UNSTABLE = Code(
    "AD615",
    "file-unstable",
    Severity.ERROR,
    "A file kept changing while it was read.",
    "Wait until the file is complete, and run the command again.",
)
DAMAGED_OBJECT = Code(
    "AD616",
    "damaged-object",
    Severity.ERROR,
    "A file in the cache is damaged.",
    "Pull again: missing files are fetched again. If it happens again, check the disk.",
)
STRAY_FILE = Code(
    "AD617",
    "stray-file",
    Severity.WARNING,
    "The cache contains a file that adapterdock did not put there.",
    "Remove it by hand if nobody needs it.",
)
UNSAFE_PATH = Code(
    "AD620",
    "unsafe-path",
    Severity.ERROR,
    "Unsafe file name: it would leave its folder, or is not a plain file name.",
    "Rename the file at its source. If the source is not yours, do not use it.",
)
BAD_DIGEST = Code(
    "AD621",
    "bad-digest",
    Severity.ERROR,
    "Invalid digest.",
    "Write it as `sha256sum FILE` prints it, with sha256: in front. Or leave it out, and "
    "`adapterdock lock` records it.",
)
OBJECT_MISSING = Code(
    "AD622",
    "object-missing",
    Severity.ERROR,
    "A file is missing or damaged in the cache.",
    "Pull again with `adapterdock pull adapters.yaml`.",
)
