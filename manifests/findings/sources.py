"""Codes AD2xx: listing and reading a source."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SOURCE_MISSING = Code(
    "AD201",
    "source-missing",
    Severity.ERROR,
    "The folder does not exist.",
    "Check the spelling, and that a relative path starts from the manifest's folder.",
)
SOURCE_NOT_A_FOLDER = Code(
    "AD202",
    "source-not-a-folder",
    Severity.ERROR,
    "The source is a single file, not a folder.",
    "Name the folder of the file, such as `./adapters/billing`.",
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
    "Cannot read a local file or folder.",
    "Give this user read permission (chmod, chown), or repair the link.",
)
TOO_MANY_FILES = Code(
    "AD205",
    "too-many-files",
    Severity.ERROR,
    "The folder has more files than any adapter or base.",
    "Name the adapter's own folder, not one above it.",
)
FILE_MISSING = Code(
    "AD206",
    "file-missing",
    Severity.ERROR,
    "A file is missing in the source.",
    "Check that the source names the right folder and revision, and that the upload is complete.",
)
HUB_REPOSITORY_NOT_FOUND = Code(
    "AD210",
    "hub-repository-not-found",
    Severity.ERROR,
    "Repository not found on the Hub, or you have no access to it.",
    "Check the spelling. If the repository is private, log in with `hf auth login` or set "
    "HF_TOKEN to a token that may read it.",
)
HUB_GATED = Code(
    "AD211",
    "hub-gated",
    Severity.ERROR,
    "The Hub repository is gated, and this account has no access yet.",
    "Open the repository's page in a browser, accept its conditions, then log in with `hf auth "
    "login` or set HF_TOKEN to a token of that account.",
)
HUB_REVISION_NOT_FOUND = Code(
    "AD212",
    "hub-revision-not-found",
    Severity.ERROR,
    "The Hub repository has no such branch, tag or commit.",
    "Check the repository's branches and tags on the Hub, or leave out '@...' to use main.",
)
HUB_DISABLED = Code(
    "AD213",
    "hub-disabled",
    Severity.ERROR,
    "The Hub has disabled access to this repository.",
    "Use another source. A copy that the lock names by digest can be used through `mirrors:`.",
)
BUCKET_NOT_FOUND = Code(
    "AD214",
    "bucket-not-found",
    Severity.ERROR,
    "The bucket does not exist at this endpoint.",
    "Check the bucket's name and the endpoint (storage_options.endpoint_url or AWS_ENDPOINT_URL).",
)
ACCESS_DENIED = Code(
    "AD220",
    "access-denied",
    Severity.ERROR,
    "The server rejected the credentials, or they give no access.",
    "Check which credentials are in use, that they have not expired, and that they may list and "
    "read this folder.",
)
NOT_AUTHENTICATED = Code(
    "AD221",
    "not-authenticated",
    Severity.ERROR,
    "No credentials found, or the server rejected them (HTTP 401).",
    "For the Hub, use `hf auth login` or HF_TOKEN. For S3, set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; for a public bucket, `storage_options: {anon: "
    "true}`.",
)
RATE_LIMITED = Code(
    "AD222",
    "rate-limited",
    Severity.ERROR,
    "Too many requests: the server asks to slow down.",
    "Wait and run again, log in to the Hub, or use a lock and a filled cache, which need no "
    "requests.",
)
SERVER_ERROR = Code(
    "AD223",
    "server-error",
    Severity.ERROR,
    "The server failed (HTTP 5xx).",
    "Run again later. The Hub's state is shown at status.huggingface.co.",
)
UNREACHABLE = Code(
    "AD224",
    "unreachable",
    Severity.ERROR,
    "Cannot connect to the server.",
    "Check the network, the proxy and the endpoint (HF_ENDPOINT, AWS_ENDPOINT_URL, "
    "storage_options.endpoint_url). To work with the caches only, use --offline.",
)
TIMED_OUT = Code(
    "AD225",
    "timed-out",
    Severity.ERROR,
    "The server stopped answering, or answers too slowly.",
    "Run again. If it happens again, check the server, or raise the timeout in storage_options.",
)
TRUNCATED = Code(
    "AD226",
    "truncated",
    Severity.ERROR,
    "Fewer bytes arrived than were announced.",
    "Run again. If it happens again, look for a proxy or a size limit on the way.",
)
BAD_ANSWER = Code(
    "AD227",
    "bad-answer",
    Severity.ERROR,
    "The server's answer cannot be used.",
    "Check that the endpoint is what the source says (a Hub, an S3 service, a web server that "
    "supports byte ranges).",
)
SOURCE_CHANGED = Code(
    "AD228",
    "source-changed",
    Severity.ERROR,
    "The source changed after it was locked, or while it was read.",
    "If the change is intended, run `adapterdock lock --upgrade NAME`. If not, restore the locked "
    "files. Publish new weights in a new folder, or enable versioning for the bucket.",
)
VERSION_GONE = Code(
    "AD229",
    "version-gone",
    Severity.ERROR,
    "The pinned version no longer exists.",
    "Restore the file, or accept the current one with `adapterdock lock --upgrade NAME`.",
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
    "Unknown kind of URL.",
    "Check the spelling. Write a local folder as ./folder or /folder.",
)
BAD_STORAGE_OPTIONS = Code(
    "AD232",
    "bad-storage-options",
    Severity.ERROR,
    "Invalid storage options or location for this kind of source.",
    "Remove the option, or correct its name as in the filesystem's documentation.",
)
OFFLINE = Code(
    "AD233",
    "offline",
    Severity.ERROR,
    "This needs the network, and the network is turned off.",
    "Fetch once while online (`adapterdock pull`), or remove --offline and unset the variables.",
)
REGISTRY_NOT_YET = Code(
    "AD234",
    "registry-not-yet",
    Severity.ERROR,
    "This version cannot open registry:// sources.",
    "Name the folder itself for now, such as `s3://team-adapters/refunds/v2.1`.",
)
BAD_MIRROR = Code(
    "AD235",
    "mirror-unusable",
    Severity.ERROR,
    "Invalid row of `mirrors:`.",
    'Write it like `"hf://": s3://airgap-mirror/hf/`.',
)
SOURCE_FAILED = Code(
    "AD236",
    "source-failed",
    Severity.ERROR,
    "The library that opens this source failed.",
    "Try the same URL with the library's own tool, to see whether the source works.",
)
TARGET_UNWRITABLE = Code(
    "AD237",
    "target-unwritable",
    Severity.ERROR,
    "Cannot write a fetched file on this machine.",
    "Free some space, or set ADAPTERDOCK_CACHE or HF_HOME to a place that can be written.",
)
CREDENTIALS_WITHHELD = Code(
    "AD389",
    "credentials-withheld",
    Severity.ERROR,
    "Credentials are not sent to a host that only the manifest chose.",
    "If you trust the host, name it in your environment (AWS_ENDPOINT_URL, HF_ENDPOINT), write "
    "the option as one ${VARIABLE}, or list it in `allow_credentials` of a policy given by "
    "--policy.",
)
BAD_SETTING = Code(
    "AD397",
    "bad-setting",
    Severity.ERROR,
    "A limit in the environment is not a number.",
    "Write a number (bytes a second, or seconds), or unset the variable. 0 means no limit for the "
    "rate and for the time of a file.",
)
