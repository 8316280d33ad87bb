"""Codes AD2xx."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SOURCE_MISSING = Code(
    "AD201",
    "source-missing",
    Severity.ERROR,
    "There is no such folder.",
    "The source names a folder that is not there: a local path that does not exist, a folder "
    "that the Hub repository does not have at this revision, or a prefix of a bucket under "
    "which no object lies. A relative local path counts from the manifest's own folder, not "
    "from where the command was started.",
    "source: ./adapters/biling          # the folder is called billing",
    "Check the spelling, and that a relative path starts from the manifest's folder.",
)

SOURCE_NOT_A_FOLDER = Code(
    "AD202",
    "source-not-a-folder",
    Severity.ERROR,
    "The source names a single file, not a folder.",
    "An adapter is several files (adapter_config.json beside its weights), so a source names "
    "the folder that holds them and never one of the files.",
    "source: ./adapters/billing/adapter_model.safetensors",
    "Name the folder that the file lies in: ./adapters/billing",
)

OUTSIDE_SOURCE = Code(
    "AD203",
    "outside-source",
    Severity.ERROR,
    "A file's name or link leads out of the source's folder.",
    "A symbolic link that points outside the folder, or a key with '..' or an empty step in it, "
    "would let the content of a folder choose what is read or written "
    "elsewhere on this machine. Such a folder is refused as a whole.",
    "adapters/billing/adapter_model.safetensors -> /data/weights/latest.safetensors",
    "Copy the files themselves into the folder (cp -RL follows links), or rename the key. For "
    "a snapshot inside the Hub's cache, write hf://org/name@commit instead of its path.",
)

UNREADABLE = Code(
    "AD204",
    "unreadable",
    Severity.ERROR,
    "A local file or folder cannot be read.",
    "The operating system does not let this user read it, a link in it points nowhere, or it "
    "is something that is neither a file nor a folder (a pipe, a socket, a device).",
    "adapters/billing/adapter_config.json has mode 0600 and belongs to another user",
    "Give this user the right to read it (chmod, chown), or repair the link.",
)

TOO_MANY_FILES = Code(
    "AD205",
    "too-many-files",
    Severity.ERROR,
    "The folder holds more files than any adapter or base has.",
    "Listing stops at a fixed number of files, so that a source which names a whole bucket or "
    "a home folder by mistake answers at once instead of after an hour.",
    "source: s3://team-data            # the bucket's root, a million objects",
    "Name the adapter's own folder, not one above it.",
)

FILE_MISSING = Code(
    "AD206",
    "file-missing",
    Severity.ERROR,
    "A file is not in the source.",
    "The folder was listed, and the file that is needed is not among its files at this revision.",
    "adapter_config.json is asked for, and the folder has only README.md",
    "Check that the source names the right folder and revision, and that the upload was complete.",
)

HUB_REPOSITORY_NOT_FOUND = Code(
    "AD210",
    "hub-repository-not-found",
    Severity.ERROR,
    "The Hub knows no such repository, or does not show it to you.",
    "The Hub gives one answer for a name that is misspelt and for a private repository which "
    "the token (or its absence) gives no access to, so that nobody can find out what exists.",
    "source: hf://acme/tone-lroa",
    "Check the spelling; if the repository is private, log in with `hf auth login` or set "
    "HF_TOKEN to a token that may read it.",
)

HUB_GATED = Code(
    "AD211",
    "hub-gated",
    Severity.ERROR,
    "The Hub repository is gated, and this account has not been let in.",
    "Its owner asks users to accept conditions before they download. The list of files is "
    "public, their content is not.",
    "base: {model: hf://meta-llama/Llama-3.2-1B}",
    "Open the repository's page in a browser, accept its conditions, then log in with `hf auth "
    "login` or set HF_TOKEN to a token of that account.",
)

HUB_REVISION_NOT_FOUND = Code(
    "AD212",
    "hub-revision-not-found",
    Severity.ERROR,
    "The Hub repository has no such branch, tag or commit.",
    "What follows '@' in the source must be a branch, a tag, refs/pr/N or a full commit hash "
    "of 40 hex digits. A commit that was squashed away by its owner is gone as well.",
    "source: hf://acme/tone-lora@v22",
    "Look at the repository's branches and tags on the Hub, or leave '@...' away for main.",
)

HUB_DISABLED = Code(
    "AD213",
    "hub-disabled",
    Severity.ERROR,
    "The Hub has disabled access to this repository.",
    "The Hub's staff or the owner switched it off; no token helps.",
    "source: hf://acme/withdrawn",
    "Use another source; a copy that the lock names by digest can be put behind `mirrors:`.",
)

BUCKET_NOT_FOUND = Code(
    "AD214",
    "bucket-not-found",
    Severity.ERROR,
    "There is no such bucket at this endpoint.",
    "The endpoint answered and does not know the bucket (or the container): the name is "
    "misspelt, or the endpoint is another one than was meant.",
    "source: s3://team-adaptors/billing/v7",
    "Check the bucket's name and the endpoint (storage_options.endpoint_url or AWS_ENDPOINT_URL).",
)

ACCESS_DENIED = Code(
    "AD220",
    "access-denied",
    Severity.ERROR,
    "The credentials were refused, or do not give access.",
    "The other side answered 403, or said that the key is unknown, its signature wrong or its "
    "token expired. The credentials come from the usual places: HF_TOKEN or `hf auth login` "
    "for the Hub, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role for S3.",
    "AWS_SECRET_ACCESS_KEY belongs to another key",
    "Check which credentials are in use, that they have not expired, and that they may list "
    "and read this folder.",
)

NOT_AUTHENTICATED = Code(
    "AD221",
    "not-authenticated",
    Severity.ERROR,
    "The source needs credentials, and none that count were found.",
    "No credentials were found in the usual places, or the other side answered 401 to those "
    "that were sent.",
    "source: s3://team-adapters/billing/v7, with no AWS_* variable, profile or role",
    "Hub: `hf auth login` or HF_TOKEN. S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE or a role; for a public bucket, storage_options: {anon: true}.",
)

RATE_LIMITED = Code(
    "AD222",
    "rate-limited",
    Severity.ERROR,
    "The other side asks for fewer requests.",
    "It answered 429 or asked to slow down. The Hub allows more requests with a token than "
    "without one.",
    "forty CI jobs resolve hf://acme/tone-lora at the same minute",
    "Wait and run again; log in to the Hub; use a lock and a filled cache, which ask nothing.",
)

SERVER_ERROR = Code(
    "AD223",
    "server-error",
    Severity.ERROR,
    "The other side failed (5xx).",
    "The server answered that it could not serve the request. This is not about your manifest.",
    "503 Service Unavailable from the Hub",
    "Run again later; the Hub's state is shown at status.huggingface.co.",
)

UNREACHABLE = Code(
    "AD224",
    "unreachable",
    Severity.ERROR,
    "No connection to the other side.",
    "The name does not resolve, the connection is refused or not answered, or the TLS "
    "handshake fails.",
    "HF_ENDPOINT=http://127.0.0.1:9 or no network at all",
    "Check the network, the proxy and the endpoint (HF_ENDPOINT, AWS_ENDPOINT_URL, "
    "storage_options.endpoint_url). To work from the caches alone, use --offline.",
)

TIMED_OUT = Code(
    "AD225",
    "timed-out",
    Severity.ERROR,
    "The other side stopped answering, or answers too slowly.",
    "A connection was made, and then nothing came for longer than the timeout, or fewer bytes than "
    "the least rate allows. A transfer is begun again from where it stopped, once; then it is "
    "given up. The rate (ADAPTERDOCK_MIN_RATE, over ADAPTERDOCK_STALL_SECONDS) and the time for a "
    "file (ADAPTERDOCK_FILE_SECONDS) can be set.",
    "a storage gateway that accepts connections while its disks are stuck",
    "Run again; if it stays, look at the server, or raise the timeout in storage_options.",
)

TRUNCATED = Code(
    "AD226",
    "truncated",
    Severity.ERROR,
    "Fewer bytes came than were announced.",
    "The connection broke in the middle of a file, and going on from there did not help "
    "either. Nothing of the file was kept.",
    "a proxy that cuts every answer at 100 MB",
    "Run again; if it stays, look for a proxy or a size limit in between.",
)

BAD_ANSWER = Code(
    "AD227",
    "bad-answer",
    Severity.ERROR,
    "The other side answered with something that cannot be used.",
    "A byte range was asked for and other bytes were sent, a size is missing, or a listing is "
    "not what the protocol says. Using such an answer would be a guess.",
    "a web server that ignores Range and would send gigabytes to reach the asked bytes",
    "Check that the endpoint really is what the source says (a Hub, an S3 service, a web "
    "server that supports byte ranges).",
)

SOURCE_CHANGED = Code(
    "AD228",
    "source-changed",
    Severity.ERROR,
    "The source changed under its lock, or while it was being read.",
    "A file is no longer the one that was pinned: its size, ETag or version is another. With "
    "an S3 bucket that keeps versions, or a Hub commit, the pinned content stays readable; a "
    "plain object that was overwritten is gone.",
    "s3://team-adapters/billing/v7/adapter_model.safetensors was uploaded again",
    "If the change is wanted: `adapterdock lock --upgrade NAME`. If not, put the locked files "
    "back. Publish new weights under a new folder, or switch on versioning for the bucket.",
)

VERSION_GONE = Code(
    "AD229",
    "version-gone",
    Severity.ERROR,
    "The version that was pinned no longer exists.",
    "The lock names one version of a file, and the source says that it has been deleted.",
    "a lifecycle rule removed old object versions from the bucket",
    "Put the file back, or accept what is there now: `adapterdock lock --upgrade NAME`.",
)

DRIVER_MISSING = Code(
    "AD230",
    "driver-missing",
    Severity.ERROR,
    "The package that opens this kind of URL is not installed.",
    "fsspec opens many kinds of storage, each through a package of its own, which is installed "
    "only where it is needed.",
    "source: gs://team-adapters/billing     # without gcsfs",
    "Install the package that the message names.",
)

UNKNOWN_SCHEME = Code(
    "AD231",
    "unknown-scheme",
    Severity.ERROR,
    "Nothing here opens this kind of URL.",
    "The part before '://' is neither one of ours nor known to fsspec.",
    "source: s4://team-adapters/billing/v7",
    "Check the spelling. A local folder is written ./folder or /folder.",
)

BAD_STORAGE_OPTIONS = Code(
    "AD232",
    "bad-storage-options",
    Severity.ERROR,
    "The storage options or the location are not what this kind of source takes.",
    "`storage_options` is handed to the fsspec filesystem of the URL's scheme. A local folder "
    "takes none; the Hub takes `endpoint` and `token`. An option that has no effect is an "
    "error, because it would be believed.",
    "adapters: {tone: {source: ./tone, storage_options: {anon: true}}}",
    "Remove the option, or correct its name after the filesystem's documentation.",
)

OFFLINE = Code(
    "AD233",
    "offline",
    Severity.ERROR,
    "This is needed from the network, and the network is switched off.",
    "--offline, ADAPTERDOCK_OFFLINE=1 or HF_HUB_OFFLINE=1 is set. Local folders work, and the "
    "Hub's cache works for commits (and branches) that it has seen.",
    "HF_HUB_OFFLINE=1 adapterdock validate adapters.yaml, before anything was fetched",
    "Fetch once while online (`adapterdock pull`), or leave out --offline and unset the variables.",
)

REGISTRY_NOT_YET = Code(
    "AD234",
    "registry-not-yet",
    Severity.ERROR,
    "registry:// sources cannot be opened by this version.",
    "The language has them, so that manifests need not change, but this version does not "
    "resolve them yet.",
    "source: registry://team/refunds@^2.1",
    "Name the folder itself for now: s3://team-adapters/refunds/v2.1",
)

BAD_MIRROR = Code(
    "AD235",
    "mirror-unusable",
    Severity.ERROR,
    "A row of `mirrors:` cannot be used.",
    "The left side is a URL prefix (scheme://, then whole path steps); the right side is a "
    "source to which the remaining steps are added.",
    'mirrors: {"hf": s3://airgap-mirror/hf/}      # no ://',
    'Write it like "hf://": s3://airgap-mirror/hf/',
)

SOURCE_FAILED = Code(
    "AD236",
    "source-failed",
    Severity.ERROR,
    "The library that opens this source failed.",
    "Something went wrong that has no code of its own; the message says which error the "
    "library raised.",
    "a storage service that answers in a way its own client does not understand",
    "Try the same URL with the library's own tool, to see whether the source works at all.",
)

TARGET_UNWRITABLE = Code(
    "AD237",
    "target-unwritable",
    Severity.ERROR,
    "What was fetched could not be written on this machine.",
    "The disk is full, or the place is read-only or belongs to another user.",
    "HF_HOME is on a read-only file system",
    "Make room, or point ADAPTERDOCK_CACHE or HF_HOME to a place that can be written.",
)
CREDENTIALS_WITHHELD = Code(
    "AD389",
    "credentials-withheld",
    Severity.ERROR,
    "Credentials are not sent to a host that only the manifest chose.",
    "A manifest may come from anybody. Where its storage options name a host (`endpoint`, "
    "`endpoint_url`, a proxy) or turn off the verification of one, that host is asked without the "
    "token, keys and passwords of your environment; a driver that cannot be asked so is not used. "
    "A host that you chose yourself gets them as always: one in HF_ENDPOINT, AWS_ENDPOINT_URL or "
    "the profile in ~/.aws/config, a value that is one whole environment variable, and what a "
    "policy from outside lists under `allow_credentials`.",
    "storage_options: {endpoint_url: https://storage.example}   # a private bucket there",
    "if you trust the host, name it in your environment (AWS_ENDPOINT_URL, HF_ENDPOINT), write the "
    "option as one ${VARIABLE}, or list it in `allow_credentials` of a policy given by --policy",
)

BAD_SETTING = Code(
    "AD397",
    "bad-setting",
    Severity.ERROR,
    "A limit in the environment is not a number.",
    "ADAPTERDOCK_MIN_RATE, ADAPTERDOCK_STALL_SECONDS and ADAPTERDOCK_FILE_SECONDS bound how slow a "
    "transfer may be. A value that cannot be read is an error, because the limit that it was "
    "meant to set would not hold.",
    "ADAPTERDOCK_MIN_RATE=fast adapterdock pull adapters.yaml",
    "Write a number (bytes a second, or seconds), or unset the variable. 0 means no limit for the "
    "rate and for the time of a file.",
)
