"""Everything that reads what others wrote to a registry or a command line, for fuzzing.

Each reader takes bytes and returns, or raises what it says that it raises. What it returns is used
as its callers use it, so that nothing is accepted that breaks later.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.oci_reference import parse_reference as parse_oci
from adapterdock.manifests.language.published_names import wrong_alias, wrong_name
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.manifests.language.versions import parse_range, parse_version
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.names import one_edit_apart
from adapterdock.registry.catalogue.promote import history, promote
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.catalogue.reference import parse_reference
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.oci.archive_storage import ArchiveStorage, pack_registry
from adapterdock.registry.oci.artifact import Artifact, read_adapter, read_signatures
from adapterdock.registry.oci.http import challenges, said, token_in
from adapterdock.registry.oci.layout import OciLayout, write_layout
from adapterdock.registry.oci.manifest import (
    Descriptor,
    InvalidManifestError,
    make_index,
    read_index,
    read_manifest,
)
from adapterdock.registry.oci.setup_artifact import Content, pack_setup, read_setup
from adapterdock.registry.records.entry import InvalidEntryError, parse_object, read_entry
from adapterdock.registry.records.journal import head
from adapterdock.registry.records.metrics import parse_requirement
from adapterdock.registry.records.series import (
    BrokenSeriesError,
    canonical,
    check_chain,
    file_of,
    read_value,
)
from adapterdock.registry.signatures.envelope import (
    InvalidEnvelopeError,
    Kind,
    SignedFile,
    read_envelope,
    signers_of,
)
from adapterdock.registry.signatures.keys import PublicKey, parse_public_key
from adapterdock.registry.storages.layout import IDENTITY, alias_folder, entry_file, marks_folder
from adapterdock.registry.unbundling import unpack

from . import oci_adapters
from .memory_storage import MemoryStorage
from .published import entry

NAME, VERSION = "refunds", "1.0.0"
_PROBED = [parse_version(v) for v in ("0.0.0", "1.2.3", "1.2.3-rc.1", "2.0.0", "999999999.0.0")]


@dataclass(frozen=True)
class Reader:
    """``read`` raises nothing but ``raises``, whatever it gets; ``examples`` are real inputs."""

    name: str
    read: Callable[[bytes], object]
    examples: Sequence[bytes]
    raises: tuple[type[Exception], ...] = ()
    share: int = 10
    """How often it is asked, beside the others; a slow one less."""


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _entry(raw: bytes) -> None:
    found = read_entry(raw, NAME, VERSION)
    again = entry_bytes(found)
    assert entry_bytes(read_entry(again, NAME, VERSION)) == again


def _object(raw: bytes) -> None:
    canonical(parse_object(raw))


def _version(raw: bytes) -> None:
    text = _text(raw)
    found = parse_version(text)
    if found is not None:
        assert str(found) == text
        assert sorted([found, *filter(None, _PROBED)])


def _range(raw: bytes) -> None:
    found = parse_range(_text(raw))
    if found is not None:
        assert found.text == _text(raw)
        best = found.best(filter(None, _PROBED))
        assert best is None or best in found


def _selector(raw: bytes) -> None:
    found = parse_selector(_text(raw))
    if found is not None:
        kinds = (found.version, found.range, found.alias, found.digest)
        assert sum(kind is not None for kind in kinds) == 1


def _names(raw: bytes) -> None:
    text = _text(raw)
    half = len(text) // 2
    assert one_edit_apart(text[:half], text[half:]) == one_edit_apart(text[half:], text[:half])
    if wrong_name(text) is None:
        assert text.isascii() and text == text.lower() and ".." not in text
        assert not {"", ".", "..", "con", "versions"} & set(text.split("/"))
    if wrong_alias(text) is None:
        assert parse_version(text) is None and parse_range(text) is None


def _reference(raw: bytes) -> None:
    text = _text(raw)
    assert str(parse_reference(text)) == text


def _oci_reference(raw: bytes) -> None:
    found = parse_oci(_text(raw))
    if found is not None:
        assert parse_oci(str(found)) == found
        assert found.api.startswith(("http://", "https://"))


def _requirement(raw: bytes) -> None:
    parse_requirement(_text(raw)).check(entry(metrics={"accuracy": 0.9}))


def _value(raw: bytes) -> None:
    found = read_value(MemoryStorage({"s/00000002.json": raw}), "s", 2)
    check_chain("s", None, found)
    canonical(found.data)


@cache
def _published() -> Mapping[str, bytes]:
    raw = entry_bytes(entry(VERSION))
    first = {"version": VERSION, "entry": sha256_bytes(raw), "previous": None, "nonce": "a"}
    identity = {"format": 1, "id": "0" * 32, "title": "The team's"}
    return {
        IDENTITY: canonical(identity),
        entry_file(NAME, VERSION): raw,
        f"{alias_folder(NAME, 'prod')}/{file_of(1)}": canonical(first),
    }


def _team(path: str, raw: bytes) -> Catalogue:
    return open_catalogue(MemoryStorage({**_published(), path: raw}))


def _identity(raw: bytes) -> None:
    team = _team(IDENTITY, raw)
    assert team.id.isalnum() and len(team.id) <= 64


def _alias(raw: bytes) -> None:
    team = _team(f"{alias_folder(NAME, 'prod')}/{file_of(2)}", raw)
    selector = parse_selector("prod")
    assert selector is not None
    acts = (
        lambda: team.resolve(NAME, selector),
        lambda: team.alias_version(team.listing(NAME), "prod"),
        lambda: [_shown(row) for row in history(team, NAME, "prod")],
        lambda: promote(team, NAME, VERSION, "prod", dry_run=True),
    )
    for act in acts:
        try:
            act()
        except AdapterdockError as error:
            _shown(error)


def _mark(raw: bytes) -> None:
    team = _team(f"{marks_folder(NAME, VERSION)}/{file_of(1)}", raw)
    found = team.mark(team.listing(NAME), VERSION)
    assert found is not None
    _shown(found, found.warning(NAME, VERSION, Where()))


def _journal(raw: bytes) -> None:
    found = head(MemoryStorage({f"journal/{file_of(1)}": raw}))
    assert found is not None
    canonical(found.data)


def _envelope(raw: bytes) -> None:
    found = read_envelope(raw)
    assert read_envelope(found.raw) == found


@cache
def _signed() -> tuple[bytes, SignedFile, PublicKey]:
    """An envelope, what it signs, and the key that did."""
    from adapterdock.registry.signatures.envelope import sign

    from .signing import make_signer

    file = SignedFile(Kind.ENTRY, "0" * 32, entry_file(NAME, VERSION), "sha256:" + "1" * 64)
    signer = make_signer()
    return sign(file, signer).raw, file, signer.key


def _signature(raw: bytes) -> None:
    """Whatever is changed: either nothing that was signed, or it does not count."""
    _, file, key = _signed()
    found = read_envelope(raw)
    signed = signers_of(found, file, [key])
    assert signed <= {key.id}
    if signed:
        assert found.payload == file.statement


def _key(raw: bytes) -> None:
    found = parse_public_key(raw, "a key")
    assert parse_public_key(found.pem.encode(), "a key") == found


class _Blobs:
    """Contents that are what their descriptors say, or empty."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    def read(self, descriptor: Descriptor) -> bytes:
        return self._contents.get(descriptor.digest, b"")

    def copy(self, descriptor: Descriptor, into: Path, on_bytes: object = None) -> None:
        raise AssertionError


def _manifest(raw: bytes) -> None:
    found = read_manifest(raw)
    blobs = _Blobs({sha256_bytes(oci_adapters.entry_bytes()): oci_adapters.entry_bytes()})
    for act in (
        lambda: read_adapter(found, blobs),
        lambda: read_signatures(found, "sha256:" + "0" * 64, blobs),
    ):
        try:
            act()
        except InvalidManifestError as error:
            _shown(error)


def _oci_entry(raw: bytes) -> None:
    data = json.loads(oci_adapters.artifact().manifest.raw)
    data["config"].update(digest=sha256_bytes(raw), size=len(raw))
    read_adapter(read_manifest(canonical(data)), _Blobs({sha256_bytes(raw): raw}))


def _index(raw: bytes) -> None:
    found = read_index(raw)
    again = read_index(make_index(found))
    assert [one.digest for one, _ in again] == [one.digest for one, _ in found]


def _answers(raw: bytes) -> None:
    """What an OCI registry answers with."""
    text = raw.decode("latin-1")
    for _, parameters in challenges(text):
        assert all(isinstance(value, str) for value in parameters.values())
    token, error = token_in(raw), said(raw)
    assert token is None or token.isascii()
    assert error is None or error.isprintable()


def archive_reader(folder: Path) -> Reader:
    """The reader of OCI archives, which are files."""
    path, there = folder / "archive.oci.tar", folder / "there"

    def registry_in_it() -> None:
        storage = ArchiveStorage(path, None, Where())
        for name in storage.find(""):
            storage.read(name, 1 << 20)
        open_catalogue(storage)

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        for act in (lambda: unpack(path, there), registry_in_it):
            try:
                act()
            except AdapterdockError as error:
                _shown(error)
        assert {found.name for found in folder.iterdir()} <= {path.name, there.name}
        shutil.rmtree(there, ignore_errors=True)
        with OciLayout(path) as layout:
            layout.verify()

    write_layout(path, {"setup": _setup_artifact(), "team": pack_registry(_published(), {})})
    examples = [*_archives(), path.read_bytes()]
    return Reader("archive", read, examples, (AdapterdockError,), share=2)


def _setup_artifact() -> Artifact:
    files = {"adapters.yaml": Content.of(b"version: 1\n"), "a/b.json": Content.of(b"{}")}
    return pack_setup("adapters.yaml", files, [Content.of(b"weights")])


def _setup(raw: bytes) -> None:
    packed = _setup_artifact()
    blobs = _Blobs({d: c for d, c in packed.contents.items() if isinstance(c, bytes)})
    found = read_setup(read_manifest(raw), blobs)
    assert found.manifest in found.files
    assert not any(set(path.split("/")) & {"", ".", "..", ".git"} for path in found.files)


def _setup_config(raw: bytes) -> None:
    data = json.loads(_setup_artifact().manifest.raw)
    data["config"].update(digest=sha256_bytes(raw), size=len(raw))
    read_setup(read_manifest(canonical(data)), _Blobs({sha256_bytes(raw): raw}))


def _archives() -> list[bytes]:
    packed = oci_adapters.artifact()
    manifest = packed.manifest
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}\n',
        "index.json": make_index([(manifest.descriptor, {})]),
        f"blobs/sha256/{manifest.digest[7:]}": manifest.raw,
        **{f"blobs/sha256/{d[7:]}": raw for d, raw in packed.contents.items()},
    }
    found: list[bytes] = []
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=format) as tar:
            for name, content in files.items():
                assert isinstance(content, bytes)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        found.append(out.getvalue())
    return found


def _shown(*values: object) -> None:
    """As a command would print it."""
    for value in values:
        str(value).encode()


_TEXTS = (
    *(b"1.2.3", b"2.1.0-rc.1", b"0.0.1-alpha.10.x-y", b"9007199254740991.1.1", b"^2.1", b"~2.1"),
    *(b">=2,<3", b">=1.2.3-rc.1 <2", b"=1", b"<=0.1", b"prod", b"canary-eu", b"team/refunds"),
    *(b"team/eu/refunds@^2.1", b"team/refunds@sha256:" + b"0" * 64, b"team/refunds@prod"),
    *(b"oci://ghcr.io/team/refunds:2.1.0", b"oci://127.0.0.1:5000/a/b@sha256:" + b"0" * 64),
    *(b"accuracy>=0.9", b"loss < 1e-3"),
)
_PEM = (
    b"-----BEGIN PUBLIC KEY-----\n"
    b"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    b"-----END PUBLIC KEY-----\n"
)


def readers() -> list[Reader]:
    """All that need no folder."""
    full = entry(
        VERSION,
        description="Über 日本",
        metrics={"accuracy": 0.91, "loss": 1e-3},
        tags=("a", "b"),
        provenance={"data": ("x",), "parents": ("team/other@1.0.0",)},
    )
    entries = [entry_bytes(full), entry_bytes(entry(VERSION))]
    values = [
        canonical({"version": VERSION, "entry": sha256_bytes(entries[1]), "previous": None}),
        canonical({"yanked": True, "deprecated": False, "why": "Über", "previous": None}),
        canonical({"what": "publish", "name": NAME, "version": VERSION, "previous": None}),
    ]
    first = _published()[f"{alias_folder(NAME, 'prod')}/{file_of(1)}"]
    second = canonical({**json.loads(first), "previous": sha256_bytes(first), "why": "Über"})
    envelope, _, _ = _signed()
    manifest = oci_adapters.artifact().manifest
    ours = (AdapterdockError,)
    return [
        Reader("entry", _entry, entries, (InvalidEntryError,), share=30),
        Reader("object", _object, [*entries, *values], (InvalidEntryError,)),
        Reader("version", _version, _TEXTS, share=20),
        Reader("range", _range, _TEXTS, share=20),
        Reader("selector", _selector, _TEXTS),
        Reader("names", _names, _TEXTS),
        Reader("reference", _reference, _TEXTS, ours),
        Reader("oci reference", _oci_reference, _TEXTS),
        Reader("requirement", _requirement, _TEXTS, ours, share=5),
        Reader("value", _value, values, (BrokenSeriesError,), share=20),
        Reader("identity", _identity, [_published()[IDENTITY]], ours, share=5),
        Reader("alias", _alias, [second], ours, share=5),
        Reader("mark", _mark, [values[1]], ours),
        Reader("journal", _journal, values, (BrokenSeriesError,)),
        Reader("envelope", _envelope, [envelope], (InvalidEnvelopeError,), share=20),
        Reader("signature", _signature, [envelope], (InvalidEnvelopeError,), share=3),
        Reader("key", _key, [_PEM], ours, share=3),
        Reader("manifest", _manifest, [manifest.raw], (InvalidManifestError,), share=20),
        Reader(
            "oci entry", _oci_entry, [oci_adapters.entry_bytes()], (InvalidManifestError,), share=5
        ),
        Reader(
            "index",
            _index,
            [make_index([(manifest.descriptor, {"a": "b"})])],
            (InvalidManifestError,),
            share=5,
        ),
        Reader("set-up", _setup, [_setup_artifact().manifest.raw], (InvalidManifestError,)),
        Reader(
            "set-up config",
            _setup_config,
            [b'{"format":1,"manifest":"adapters.yaml"}'],
            (InvalidManifestError,),
            share=5,
        ),
        Reader("answers", _answers, _ANSWERS),
    ]


_ANSWERS = (
    b'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull"',
    b'Basic realm="a\\"b", Negotiate',
    b'{"token":"eyJhbGciOi.J9-_","expires_in":300}',
    b'{"errors":[{"code":"DENIED","message":"no"}]}',
)
