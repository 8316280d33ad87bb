"""Codes AD2xx: listing and reading a source."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SOURCE_MISSING = Code(
    "AD201",
    "source-missing",
    Severity.ERROR,
    "There is no such folder.",
    "Check the spelling, and that a relative path starts from the manifest's folder.",
)
SOURCE_NOT_A_FOLDER = Code(
    "AD202",
    "source-not-a-folder",
    Severity.ERROR,
    "The source names a single file, not a folder.",
    "Name the folder that the file lies in: ./adapters/billing",
)
OUTSIDE_SOURCE = Code(
    "AD203",
    "outside-source",
    Severity.ERROR,
    "A file's name or link leads out of the source's folder.",
    "Copy the files themselves into the folder (cp -RL follows links), or rename the key. For a "
    "snapshot inside the Hub's cache, write hf://org/name@commit instead of its path.",
)
UNREADABLE = Code(
    "AD204",
    "unreadable",
    Severity.ERROR,
    "A local file or folder cannot be read.",
    "Give this user the right to read it (chmod, chown), or repair the link.",
)
TOO_MANY_FILES = Code(
    "AD205",
    "too-many-files",
    Severity.ERROR,
    "The folder holds more files than any adapter or base has.",
    "Name the adapter's own folder, not one above it.",
)
FILE_MISSING = Code(
    "AD206",
    "file-missing",
    Severity.ERROR,
    "A file is not in the source.",
    "Check that the source names the right folder and revision, and that the upload was complete.",
)
HUB_REPOSITORY_NOT_FOUND = Code(
    "AD210",
    "hub-repository-not-found",
    Severity.ERROR,
    "The Hub knows no such repository, or does not show it to you.",
    "Check the spelling; if the repository is private, log in with `hf auth login` or set "
    "HF_TOKEN to a token that may read it.",
)
HUB_GATED = Code(
    "AD211",
    "hub-gated",
    Severity.ERROR,
    "The Hub repository is gated, and this account has not been let in.",
    "Open the repository's page in a browser, accept its conditions, then log in with `hf auth "
    "login` or set HF_TOKEN to a token of that account.",
)
HUB_REVISION_NOT_FOUND = Code(
    "AD212",
    "hub-revision-not-found",
    Severity.ERROR,
    "The Hub repository has no such branch, tag or commit.",
    "Look at the repository's branches and tags on the Hub, or leave '@...' away for main.",
)
HUB_DISABLED = Code(
    "AD213",
    "hub-disabled",
    Severity.ERROR,
    "The Hub has disabled access to this repository.",
    "Use another source; a copy that the lock names by digest can be put behind `mirrors:`.",
)
BUCKET_NOT_FOUND = Code(
    "AD214",
    "bucket-not-found",
    Severity.ERROR,
    "There is no such bucket at this endpoint.",
    "Check the bucket's name and the endpoint (storage_options.endpoint_url or AWS_ENDPOINT_URL).",
)
ACCESS_DENIED = Code(
    "AD220",
    "access-denied",
    Severity.ERROR,
    "The credentials were refused, or do not give access.",
    "Check which credentials are in use, that they have not expired, and that they may list and "
    "read this folder.",
)
NOT_AUTHENTICATED = Code(
    "AD221",
    "not-authenticated",
    Severity.ERROR,
    "The source needs credentials, and none that count were found.",
    "Hub: `hf auth login` or HF_TOKEN. S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE or a role; for a public bucket, storage_options: {anon: true}.",
)
RATE_LIMITED = Code(
    "AD222",
    "rate-limited",
    Severity.ERROR,
    "The other side asks for fewer requests.",
    "Wait and run again; log in to the Hub; use a lock and a filled cache, which ask nothing.",
)
SERVER_ERROR = Code(
    "AD223",
    "server-error",
    Severity.ERROR,
    "The other side failed (5xx).",
    "Run again later; the Hub's state is shown at status.huggingface.co.",
)
UNREACHABLE = Code(
    "AD224",
    "unreachable",
    Severity.ERROR,
    "No connection to the other side.",
    "Check the network, the proxy and the endpoint (HF_ENDPOINT, AWS_ENDPOINT_URL, "
    "storage_options.endpoint_url). To work from the caches alone, use --offline.",
)
TIMED_OUT = Code(
    "AD225",
    "timed-out",
    Severity.ERROR,
    "The other side stopped answering, or answers too slowly.",
    "Run again; if it stays, look at the server, or raise the timeout in storage_options.",
)
TRUNCATED = Code(
    "AD226",
    "truncated",
    Severity.ERROR,
    "Fewer bytes came than were announced.",
    "Run again; if it stays, look for a proxy or a size limit in between.",
)
BAD_ANSWER = Code(
    "AD227",
    "bad-answer",
    Severity.ERROR,
    "The other side answered with something that cannot be used.",
    "Check that the endpoint really is what the source says (a Hub, an S3 service, a web server "
    "that supports byte ranges).",
)
SOURCE_CHANGED = Code(
    "AD228",
    "source-changed",
    Severity.ERROR,
    "The source changed under its lock, or while it was being read.",
    "If the change is wanted: `adapterdock lock --upgrade NAME`. If not, put the locked files "
    "back. Publish new weights under a new folder, or switch on versioning for the bucket.",
)
VERSION_GONE = Code(
    "AD229",
    "version-gone",
    Severity.ERROR,
    "The version that was pinned no longer exists.",
    "Put the file back, or accept what is there now: `adapterdock lock --upgrade NAME`.",
)
DRIVER_MISSING = Code(
    "AD230",
    "driver-missing",
    Severity.ERROR,
    "The package that opens this kind of URL is not installed.",
    "Install the package that the message names.",
)
UNKNOWN_SCHEME = Code(
    "AD231",
    "unknown-scheme",
    Severity.ERROR,
    "Nothing here opens this kind of URL.",
    "Check the spelling. A local folder is written ./folder or /folder.",
)
BAD_STORAGE_OPTIONS = Code(
    "AD232",
    "bad-storage-options",
    Severity.ERROR,
    "The storage options or the location are not what this kind of source takes.",
    "Remove the option, or correct its name after the filesystem's documentation.",
)
OFFLINE = Code(
    "AD233",
    "offline",
    Severity.ERROR,
    "This is needed from the network, and the network is switched off.",
    "Fetch once while online (`adapterdock pull`), or leave out --offline and unset the variables.",
)
REGISTRY_NOT_YET = Code(
    "AD234",
    "registry-not-yet",
    Severity.ERROR,
    "registry:// sources cannot be opened by this version.",
    "Name the folder itself for now: s3://team-adapters/refunds/v2.1",
)
BAD_MIRROR = Code(
    "AD235",
    "mirror-unusable",
    Severity.ERROR,
    "A row of `mirrors:` cannot be used.",
    'Write it like "hf://": s3://airgap-mirror/hf/',
)
SOURCE_FAILED = Code(
    "AD236",
    "source-failed",
    Severity.ERROR,
    "The library that opens this source failed.",
    "Try the same URL with the library's own tool, to see whether the source works at all.",
)
TARGET_UNWRITABLE = Code(
    "AD237",
    "target-unwritable",
    Severity.ERROR,
    "What was fetched could not be written on this machine.",
    "Make room, or point ADAPTERDOCK_CACHE or HF_HOME to a place that can be written.",
)
CREDENTIALS_WITHHELD = Code(
    "AD389",
    "credentials-withheld",
    Severity.ERROR,
    "Credentials are not sent to a host that only the manifest chose.",
    "if you trust the host, name it in your environment (AWS_ENDPOINT_URL, HF_ENDPOINT), write "
    "the option as one ${VARIABLE}, or list it in `allow_credentials` of a policy given by "
    "--policy",
)
BAD_SETTING = Code(
    "AD397",
    "bad-setting",
    Severity.ERROR,
    "A limit in the environment is not a number.",
    "Write a number (bytes a second, or seconds), or unset the variable. 0 means no limit for the "
    "rate and for the time of a file.",
)
