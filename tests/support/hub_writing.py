"""The half of the Hub's protocol that writes, as the installed ``huggingface_hub`` speaks it.

A push is these requests:

- ``POST /api/repos/create``, and ``POST .../branch/NAME`` for a branch that is named;
- ``POST .../preupload/REV`` says which files go to LFS, and which did not change;
- ``POST NAME.git/info/lfs/objects/batch``, a PUT of each new object to the address in its answer
  (on another host name, without the token), and a POST that verifies it; or ``hub_xet_writing.py``;
- ``POST /api/validate-yaml`` with the card;
- ``POST .../commit/REV`` with one JSON value a line. All others leave the files as they are.

``hub.writers`` says which namespaces a token may write to, the user's own first. Any token that is
known may open a pull request.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import yaml

from .hub_repo import Repo, blob_id, is_lfs
from .hub_xet_writing import XetWriting

if TYPE_CHECKING:
    from .hub_server import HubServer

FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass(frozen=True)
class Answer:
    """What the Hub says to one request."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, message: str, code: str = "") -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, {"error": message}, headers)


class HubWriting:
    """Answers the requests that write."""

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.objects: dict[str, bytes] = {}
        self.xet = XetWriting(self.objects)

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], token: str, body: bytes
    ) -> Answer | None:
        """The answer; ``None`` for a request that does not write."""
        steps = path.strip("/").split("/")
        if method == "PUT" and steps[0] == "lfs-put":
            return self._put(steps[1], token, body)
        if steps[0] == "xet" and (method == "POST" or steps[2] == "chunks"):
            return Answer(*self.xet.answer(path, body))
        if steps[4:5] == ["xet-write-token"]:
            write = query.get("create_pr") != ["1"]
            return self._xet_token("/".join(steps[2:4]), token, write)
        if method != "POST":
            return None
        if path == "/api/repos/create":
            return self._create(token, json.loads(body))
        if path == "/api/validate-yaml":
            return _validate(json.loads(body)["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch("/".join(steps[:2]).removesuffix(".git"), token, json.loads(body))
        if path.endswith("/lfs-verify"):
            return self._verify("/".join(steps[:2]), token, json.loads(body))
        match steps:
            case ["api", "models", owner, name, verb, *rest]:
                create_pr = query.get("create_pr") == ["1"]
                asked = f"{owner}/{name}", unquote("/".join(rest)), token, body, create_pr
                routes = {
                    "branch": self._branch, "preupload": self._preupload, "commit": self._commit
                }  # fmt: skip
                return routes[verb](*asked) if verb in routes else None
            case _:
                return None

    # Who may do what.

    def _closed(self, name: str, token: str, *, write: bool) -> Answer | None:
        """Why this token may not do that; ``None`` where it may."""
        if not token:
            return refusal(401, "Invalid username or password.")
        if not self.hub.is_known(token):
            return refusal(401, "Invalid credentials in Authorization header")
        if name not in self.hub.repos or not self.hub.may_read(name, token):
            return refusal(404, "Repository not found", "RepoNotFound")
        if write and not self._may_write(name, token):
            return refusal(
                403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
            )
        return None

    def _may_write(self, name: str, token: str) -> bool:
        return name.partition("/")[0] in self.hub.writers.get(token, ())

    # The routes.

    def _create(self, token: str, asked: Mapping[str, Any]) -> Answer:
        if not token:
            return refusal(401, "Invalid username or password.")
        if not self.hub.is_known(token):
            return refusal(401, "Invalid credentials in Authorization header")
        spaces = self.hub.writers.get(token, ())
        owner = asked["organization"] or (spaces[0] if spaces else "reader")
        if owner not in spaces:
            return refusal(
                403, f"You don't have the rights to create a model under the namespace {owner!r}"
            )
        name = f"{owner}/{asked['name']}"
        told = {"url": f"{self.hub.endpoint}/{name}", "name": name}
        if name in self.hub.repos:
            return Answer(409, {**told, "error": "You already created this model repo"})
        self.hub.repos[name] = Repo(name)
        self.hub.repos[name].commit(FIRST_FILES, "main", ("initial commit", ""))
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(name)
        return Answer(200, told)

    def _branch(self, name: str, branch: str, token: str, body: bytes, _: bool) -> Answer:
        if closed := self._closed(name, token, write=True):
            return closed
        repo, start = self.hub.repos[name], json.loads(body or b"{}").get("startingPoint", "main")
        if branch.startswith("refs/") or " " in branch or ".." in branch:
            return refusal(400, f"Invalid reference name: {branch}")
        if branch in repo.refs:
            return refusal(409, f"Reference already exists: {branch}")
        repo.refs[branch] = repo.refs[start]
        return Answer(200, {})

    def _preupload(self, name: str, ref: str, token: str, body: bytes, create_pr: bool) -> Answer:
        if closed := self._closed(name, token, write=not create_pr):
            return closed
        repo, asked = self.hub.repos[name], json.loads(body)
        if ref not in repo.refs:
            return refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        files = repo.files(ref)
        patterns = asked.get("gitIgnore") or files.get(".gitignore", b"").decode()
        rows = []
        for file in asked["files"]:
            path = file["path"]
            old, lfs = files.get(path), is_lfs(path) or file["size"] > 10_000_000
            oid = None if old is None else hashlib.sha256(old).hexdigest() if lfs else blob_id(old)
            rows.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if lfs else "regular",
                    "shouldIgnore": any(fnmatch.fnmatch(path, p) for p in patterns.split()),
                    **({"oid": oid} if oid else {}),
                }
            )
        return Answer(200, {"files": rows, "commitOid": repo.refs[ref]})

    def _batch(self, name: str, token: str, asked: Mapping[str, Any]) -> Answer:
        if closed := self._closed(name, token, write="ref" in asked):
            return closed
        objects = []
        for one in asked["objects"]:
            row: dict[str, Any] = {**one, "authenticated": True}
            if one["oid"] not in self.objects:
                upload = f"http://localhost:{self.hub.port}/lfs-put/{one['oid']}?Signature=s3cr3t"
                row["actions"] = {
                    "upload": {"href": upload},
                    "verify": {"href": f"{self.hub.endpoint}/{name}/lfs-verify"},
                }
            objects.append(row)
        return Answer(200, {"transfer": "basic", "objects": objects})

    def _put(self, oid: str, token: str, body: bytes) -> Answer:
        if token or hashlib.sha256(body).hexdigest() != oid:  # a signed address wants no token
            return refusal(400, "Bad upload")
        self.objects[oid] = body
        return Answer(200, {})

    def _xet_token(self, name: str, token: str, write: bool) -> Answer:
        if closed := self._closed(name, token, write=write):
            return closed
        where = f"{self.hub.endpoint}/xet"
        told = {"accessToken": "t", "exp": 2**33, "casUrl": where}
        headers = {
            "X-Xet-Cas-Url": where,
            "X-Xet-Access-Token": "t",
            "X-Xet-Token-Expiration": str(2**33),
        }
        return Answer(200, told, headers)

    def _verify(self, name: str, token: str, asked: Mapping[str, Any]) -> Answer:
        if closed := self._closed(name, token, write=False):
            return closed
        content = self.objects.get(asked["oid"])
        if content is None or len(content) != asked["size"]:
            return refusal(404, "Object not found")
        return Answer(200, {})

    def _commit(self, name: str, ref: str, token: str, body: bytes, create_pr: bool) -> Answer:
        if closed := self._closed(name, token, write=not create_pr):
            return closed
        lines = [json.loads(line) for line in body.decode().splitlines()]
        header, repo = lines[0]["value"], self.hub.repos[name]
        if ref not in repo.refs:
            return refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        if header.get("parentCommit", repo.refs[ref]) != repo.refs[ref]:
            return refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files(ref))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.objects:
                files[value["path"]] = self.objects[value["oid"]]
            else:
                return refusal(400, f"Cannot commit {line['key']} {value['path']}")
        checked = _validate(files.get("README.md", b"").decode())
        if checked.status != 200:
            return checked
        requests = [one for one in repo.refs if one.startswith("refs/pr/")]
        target = f"refs/pr/{len(requests) + 1}" if create_pr else ref
        commit = repo.commit(files, target, (header["summary"], header["description"]))
        url = f"{self.hub.endpoint}/{name}"
        told: dict[str, Any] = {
            "success": True, "commitOid": commit, "commitUrl": f"{url}/commit/{commit}"
        }  # fmt: skip
        if create_pr:
            told["pullRequestUrl"] = f"{url}/discussions/{len(requests) + 1}"
        return Answer(200, told)


def _validate(card: str) -> Answer:
    """The errors in a card's metadata, as far as an adapter's card can have them."""
    if not card.startswith("---"):
        return Answer(200, {"errors": [], "warnings": [{"message": "empty or missing metadata"}]})
    try:
        known = yaml.safe_load(card.split("---")[1])
    except yaml.YAMLError as error:
        return _invalid(f"Invalid YAML: {error}")
    tags = known.get("tags") or []
    if not all(isinstance(tag, str) and tag for tag in tags):
        return _invalid('"tags" must be an array of strings')
    relations = ("adapter", "finetune", "merge", "quantized")
    if known.get("base_model_relation", "adapter") not in relations:
        return _invalid(f'"base_model_relation" must be one of {relations}')
    return Answer(200, {"errors": [], "warnings": []})


def _invalid(message: str) -> Answer:
    errors = [{"message": message}]
    return Answer(400, {"error": "Invalid metadata in README.md", "errors": errors, "warnings": []})
