"""Codes AD6xx: the cache, and bytes that are not what they should be."""

from __future__ import annotations

from .code import Code
from .finding import Severity

CACHE_NOT_A_FOLDER = Code(
    "AD601",
    "cache-not-a-folder",
    Severity.ERROR,
    "The cache's path, or a part of it, is a file.",
    "adapterdock keeps what it fetched in one folder: $ADAPTERDOCK_CACHE, else "
    "$XDG_CACHE_HOME/adapterdock, else ~/.cache/adapterdock. Something that is no folder is in "
    "its way, so nothing can be kept there.",
    "touch /tmp/c; ADAPTERDOCK_CACHE=/tmp/c adapterdock pull adapters.yaml",
    "Remove that file, or set ADAPTERDOCK_CACHE to a folder.",
)

NO_SPACE = Code(
    "AD602",
    "no-space",
    Severity.ERROR,
    "The disk (or the quota on it) has no room for a file that must be fetched.",
    "The free space is compared with what is to be fetched before the first byte is transferred, "
    "and a disk that fills up later stops the transfer. Nothing half-written stays behind, and "
    "files that were complete before stay in the cache.",
    "A 2 GB base onto a disk with 1 GB free.",
    "Free some space (`adapterdock cache gc --max-size 5GiB` removes what was used longest ago), "
    "or set ADAPTERDOCK_CACHE to a folder on a larger disk.",
)

CACHE_READ_ONLY = Code(
    "AD603",
    "cache-read-only",
    Severity.ERROR,
    "The cache is on a file system that cannot be written to.",
    "A read-only cache is fine as long as everything needed is in it already: it is read and "
    "verified as always. This time something had to be added.",
    "A container image with the cache baked in, and a manifest that names one adapter more.",
    "Pull on the machine that makes the cache, or set ADAPTERDOCK_CACHE to a folder that can be "
    "written to.",
)

CACHE_PERMISSION = Code(
    "AD604",
    "cache-permission",
    Severity.ERROR,
    "This user may not read or write a file.",
    "The operating system refused access to a file or folder, mostly of the cache. It often "
    "belongs to another user, because a command ran once with sudo or in a container.",
    "sudo adapterdock pull adapters.yaml; adapterdock pull other.yaml",
    "Give the folder back to this user (chown -R), or set ADAPTERDOCK_CACHE to a folder of its "
    "own.",
)

PATH_TOO_LONG = Code(
    "AD605",
    "path-too-long",
    Severity.ERROR,
    "A path is longer than the file system allows.",
    "Most file systems allow 255 bytes for one name and some 4096 for a whole path.",
    "ADAPTERDOCK_CACHE=/a/very/deep/folder/...",
    "Set ADAPTERDOCK_CACHE to a folder with a shorter path, or shorten the file's name at its "
    "source.",
)

CACHE_IO = Code(
    "AD606",
    "cache-io",
    Severity.ERROR,
    "The operating system could not read or write a file.",
    "Reading or writing failed in a way that has no code of its own; the system's own words are "
    "in the message. A failing disk and a lost network mount are the usual causes.",
    "[Errno 5] Input/output error",
    "Check the disk or mount; then run `adapterdock cache verify`, and pull again.",
)

CACHE_UNKNOWN_PLACE = Code(
    "AD607",
    "cache-unknown-place",
    Severity.ERROR,
    "There is no home folder, so there is no default place for the cache.",
    "Without ADAPTERDOCK_CACHE and XDG_CACHE_HOME the cache lies in the user's home folder, and "
    "the system knows of none.",
    "A container that runs as a user id without an entry in /etc/passwd and without HOME.",
    "Set ADAPTERDOCK_CACHE to a folder.",
)

WRONG_DIGEST = Code(
    "AD610",
    "wrong-digest",
    Severity.ERROR,
    "A file's content is not the one that its digest names.",
    "The SHA-256 of what arrived differs from the one in the lock, in the manifest or in the "
    "Hub's own record. The file was damaged on its way, replaced at the source, or tampered "
    "with. It was not kept and not used, and everything else was stopped.",
    "sha256: sha256:9f86d0... in the lock, and other bytes at the source",
    "Pull once more: damage on the way goes away. If it stays, the source has changed: look at it "
    "with `adapterdock lock --diff`, and accept it with `adapterdock lock --upgrade NAME` only if "
    "you trust it.",
)

WRONG_SIZE = Code(
    "AD611",
    "wrong-size",
    Severity.ERROR,
    "A file has more or fewer bytes than it should have.",
    "Fewer bytes mean that the transfer was cut off (a proxy, a lost connection); more mean that "
    "the file at the source is another one. It was not kept and not used.",
    "A connection that closes after 3 of 9 MB without an error",
    "Pull once more. If it stays, compare the file at the source with its lock: `adapterdock lock "
    "--diff`.",
)

NOT_AS_LOCKED = Code(
    "AD612",
    "not-as-locked",
    Severity.ERROR,
    "A file at its source is no longer the one that was locked.",
    "The source's own listing names another size, digest or version than the lock, or names the "
    "file no more. That is known before anything is transferred, so nothing was.",
    "s3://team-adapters/billing/v7 was overwritten after `adapterdock lock`",
    "See what changed with `adapterdock lock --diff`; accept it with `adapterdock lock --upgrade "
    "NAME`, or restore the file at its source.",
)

DAMAGED_HUB_FILE = Code(
    "AD613",
    "damaged-hub-file",
    Severity.ERROR,
    "A file in the Hub's own cache on this machine is damaged.",
    "Files from the Hub stay in the Hub's cache, are used from there, and are verified before "
    "every use. This one has other bytes than the Hub's record or the lock names. The Hub's "
    "client does not notice, so it would keep handing it out. Online it is fetched anew and "
    "replaced; offline it cannot be used.",
    "A blob under ~/.cache/huggingface/hub that was cut short by a full disk",
    "Pull once while online. If it stays, delete the blob that the message names.",
)

LOCAL_FILE_CHANGED = Code(
    "AD614",
    "local-file-changed",
    Severity.ERROR,
    "A file in a local folder is not the one that was locked.",
    "Local files are used where they lie and verified before every use. This one has another size "
    "or digest than the lock names.",
    "./adapters/legal was trained again after `adapterdock lock`",
    "Restore the file, or accept it with `adapterdock lock --upgrade NAME`. For a folder that "
    "keeps changing, write `mutable: true` in the manifest.",
)

FILE_UNSTABLE = Code(
    "AD615",
    "file-unstable",
    Severity.ERROR,
    "A file kept changing while it was read.",
    "A digest means nothing if the file is another one at its end than at its start. It was read "
    "several times, and changed each time.",
    "A training run that is writing its checkpoint right now",
    "Wait until whatever writes it is done, and run the command again.",
)

DAMAGED_OBJECT = Code(
    "AD616",
    "damaged-object",
    Severity.ERROR,
    "A file in the cache is not the one that its name says.",
    "Each file in the cache is named by its digest, and this one has another content: a failing "
    "disk, or someone wrote into it. It was taken out of the cache.",
    "adapterdock cache verify",
    "Pull again: what is missing is fetched anew. If it happens again, check the disk.",
)

STRAY_FILE = Code(
    "AD617",
    "stray-file",
    Severity.WARNING,
    "Something lies in the cache that adapterdock did not put there.",
    "Files in the cache's objects folder are regular files named by their digest. Anything else "
    "is never read, and is left alone.",
    "cp notes.txt ~/.cache/adapterdock/objects/sha256/",
    "Remove it by hand if nobody needs it.",
)

UNSAFE_PATH = Code(
    "AD620",
    "unsafe-path",
    Severity.ERROR,
    "A file's name would leave its folder, or cannot be a plain file name.",
    "Names of files inside a source are relative, with forward slashes, without '.' or '..' or "
    "empty steps, control characters or backslashes, and no name is both a file and a folder. "
    "Anything else could write outside the folder that it is meant for, or be read as two files.",
    "../../.ssh/authorized_keys",
    "Rename the file at its source. If the source is not yours, do not use it.",
)

BAD_DIGEST = Code(
    "AD621",
    "bad-digest",
    Severity.ERROR,
    "This is no digest.",
    "A digest is written sha256: and then 64 of 0-9 a-f, in lower case.",
    "sha256: d2d2d2",
    "Write it as `sha256sum FILE` prints it, with sha256: in front; or leave it out, and "
    "`adapterdock lock` records it.",
)

OBJECT_MISSING = Code(
    "AD622",
    "object-missing",
    Severity.ERROR,
    "A file is needed from the cache and is not there, or is damaged there.",
    "It was removed since it was fetched (by hand, or by `adapterdock cache gc`), or its content "
    "no longer fits its digest.",
    "rm -r ~/.cache/adapterdock/objects while a model loads",
    "Pull again: `adapterdock pull adapters.yaml`.",
)

NO_CACHE = Code(
    "AD399",
    "no-cache",
    Severity.ERROR,
    "This folder is not a cache of adapterdock.",
    "A cache has a folder objects/sha256 or a CACHEDIR.TAG that adapterdock wrote. This folder has "
    "neither, so nothing in it can be verified, and nothing in it is removed. Most often "
    "ADAPTERDOCK_CACHE names another folder than was meant. (A folder that is empty or not there "
    "is no error: it may become a cache.)",
    "ADAPTERDOCK_CACHE=~/Documents adapterdock cache verify",
    "Set ADAPTERDOCK_CACHE to the cache's own folder.",
)
