"""``push_to_hub``, by the real ``huggingface_hub`` client against a server with its protocol."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    OfflineError,
    RoutingError,
    SourceError,
    UsageError,
)
from huggingface_hub import ModelCard, close_session, constants
from support.hub_repo import Repo
from support.hub_server import HubServer
from support.near import close
from support.peft_adapters import Saved, logits, peft_saves, tiny_llama

MINE = "hf_mine45678"
READS = "hf_read45678"
WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "README.md"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("one") / "tone"
    return peft_saves(tiny_llama(), folder, target_modules=["q_proj"], task_type="CAUSAL_LM")


@pytest.fixture
def model(one: Saved) -> AdaptedModel:
    base = tiny_llama()
    base.config._name_or_path = "acme/base-7b"
    return AdaptedModel.from_pretrained(base, one.folder)


@pytest.fixture
def there(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub on which ``MINE`` may write to ``acme``; files go up by LFS, as without hf_xet."""
    hub.writers[MINE] = ("acme", "acme-labs")
    hub.tokens.add(READS)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return hub


def visible(repo: Repo, ref: str = "main") -> dict[str, bytes]:
    return {name: data for name, data in repo.files(ref).items() if name[0] != "."}


def peft_reads(name: str, **options: Any) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(tiny_llama(), name, **options).eval()


def refused(model: AdaptedModel, name: str = "acme/tone", **options: Any) -> AdapterdockError:
    with pytest.raises(AdapterdockError) as caught:
        model.push_to_hub(name, **{"token": MINE, **options})
    shown = str(caught.value)
    assert MINE not in shown and "hint: " in shown
    return caught.value


def test_an_adapter_is_pushed_and_loaded_again_by_both(
    there: HubServer, model: AdaptedModel, one: Saved, tmp_path: Path
) -> None:
    url = model.push_to_hub("acme/tone", token=MINE, tags=["support"])
    repo = there.repos["acme/tone"]
    assert url == f"{there.endpoint}/acme/tone/commit/{repo.refs['main']}"
    assert repo.messages[repo.refs["main"]] == ("Upload default", "")
    model.save_pretrained(tmp_path / "disk", selected_adapters=["default"])
    disk = {path.name: path.read_bytes() for path in (tmp_path / "disk").iterdir()}
    files = visible(repo)
    assert files.pop(CARD) and files == disk and set(disk) == {WEIGHTS, CONFIG}
    said = ModelCard(visible(repo)[CARD].decode()).data.to_dict()
    assert (said["base_model"], said["base_model_relation"]) == ("acme/base-7b", "adapter")
    assert {"lora", "support"} <= set(said["tags"])
    assert close(logits(AdaptedModel.from_pretrained(tiny_llama(), "acme/tone")), one.answer)
    assert close(logits(peft_reads("acme/tone")), one.answer)


def test_the_token_goes_to_the_endpoint_only(there: HubServer, model: AdaptedModel) -> None:
    model.push_to_hub("acme/tone", token=MINE, private=True)
    assert "acme/tone" in there.private
    for request in there.requests:
        sent = {key.lower(): value for key, value in request.headers.items()}
        own = request.host == f"127.0.0.1:{there.port}"
        assert sent.get("authorization") == (f"Bearer {MINE}" if own else None), request.path
    assert there.count("/lfs-put/", "PUT") == 1
    with pytest.raises(SourceError):
        AdaptedModel.from_pretrained(tiny_llama(), "acme/tone")
    AdaptedModel.from_pretrained(tiny_llama(), "acme/tone", token=MINE)


def test_the_token_of_the_environment_and_the_users_own_name(
    there: HubServer, model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", MINE)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # as it was at the import
    for token in (None, True):
        model.push_to_hub("tone", token=token)
    assert '"hf://acme/tone"' in visible(there.repos["acme/tone"])[CARD].decode()
    assert refused(model, token=False).code == "AD221"


def test_over_xet_the_same_arrives(
    there: HubServer, model: AdaptedModel, one: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where hf_xet is installed and not switched off."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    model.load_adapter(one.folder, "two")
    model.push_to_hub("acme/tone", token=MINE)
    assert there.count("/xet/v1/shards", "POST") == 1 and there.count("/lfs-put/") == 0
    assert close(logits(AdaptedModel.from_pretrained(tiny_llama(), "acme/tone")), one.answer)
    sent = [r.headers.get("authorization") for r in there.requests if r.path.startswith("/xet/")]
    assert set(sent) == {"Bearer t"}  # the storage's own token, never the user's
    model.push_to_hub("acme/tone", token=READS, create_pr=True, tags=["more"])
    assert f"two/{WEIGHTS}" in visible(there.repos["acme/tone"], "refs/pr/1")


@pytest.mark.parametrize(
    ("where", "status", "code", "said"),
    [
        ("/xet-write-token/", 401, "AD221", "rejected the token (HTTP 401)"),
        ("/xet-write-token/", 403, "AD220", "may not write there (HTTP 403)"),
        ("/xet/v1/shards", 400, "AD935", "HTTP 400"),
    ],
)
def test_a_refusal_over_xet_is_not_taken_for_a_network_that_fails(
    there: HubServer,
    model: AdaptedModel,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    status: int,
    code: str,
    said: str,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    there.fail(status, where)
    error = refused(model)
    assert error.code == code and said in str(error)
    assert visible(there.repos["acme/tone"]) == {}


def test_several_adapters_are_pushed_in_pefts_layout(
    there: HubServer, model: AdaptedModel, one: Saved
) -> None:
    model.load_adapter(one.folder, "two")
    model.load_adapter(one.folder, "three")
    model.push_to_hub("acme/tone", token=MINE, selected_adapters=["default", "two"])
    names = {CARD, CONFIG, WEIGHTS, f"two/{CONFIG}", f"two/{WEIGHTS}"}
    assert set(visible(there.repos["acme/tone"])) == names
    assert close(logits(peft_reads("acme/tone", subfolder="two")), one.answer)


def test_a_repository_that_exists_keeps_its_files_and_its_cards_text(
    there: HubServer, model: AdaptedModel
) -> None:
    card = b"---\nlicense: mit\nlanguage: no\n---\r\n# Mine\r\n"
    there.commit("acme/tone", {CARD: card, "notes.txt": b"n", CONFIG: b"{}"})
    model.push_to_hub("acme/tone", token=MINE, private=True)
    files = visible(there.repos["acme/tone"])
    assert set(files) == {CARD, CONFIG, WEIGHTS, "notes.txt"}
    text = files[CARD].decode()
    assert text.startswith("---\nlicense: mit\nlanguage: no\n") and text.endswith("---\n# Mine\r\n")
    assert "base_model: acme/base-7b\n" in text
    assert "acme/tone" not in there.private  # as for PEFT: only of a new one


def test_what_peft_pushed_is_pushed_over_and_its_card_stays(
    there: HubServer, model: AdaptedModel, one: Saved
) -> None:
    peft_reads(str(one.folder)).push_to_hub("acme/tone", token=MINE)
    repo = there.repos["acme/tone"]
    theirs = ModelCard(visible(repo)[CARD].decode())
    model.push_to_hub("acme/tone", token=MINE)
    assert len(repo.commits) == 3 and set(visible(repo)) == {CARD, CONFIG, WEIGHTS}
    ours = ModelCard(visible(repo)[CARD].decode())
    assert ours.text == theirs.text and "adapterdock" in (ours.data.tags or [])
    assert close(logits(peft_reads("acme/tone")), one.answer)


def test_the_same_again_makes_no_commit_and_a_change_makes_one(
    there: HubServer, model: AdaptedModel, one: Saved
) -> None:
    first = model.push_to_hub("acme/tone", token=MINE)
    assert model.push_to_hub("acme/tone", token=MINE) == first
    model.load_adapter(one.folder, "two")
    assert model.push_to_hub("acme/tone", token=MINE) != first
    assert len(there.repos["acme/tone"].commits) == 3
    assert there.count("/lfs-put/") == 1  # the same weights are there already


def test_messages_and_branches_are_what_pefts_are(
    there: HubServer, model: AdaptedModel, one: Saved
) -> None:
    model.push_to_hub(
        "acme/tone", token=MINE, revision="v2/new", commit_message="Second", commit_description="x"
    )
    repo = there.repos["acme/tone"]
    assert set(visible(repo)) == set()
    assert set(visible(repo, "v2/new")) == {CARD, CONFIG, WEIGHTS}
    assert repo.messages[repo.refs["v2/new"]] == ("Second", "x")
    again = AdaptedModel.from_pretrained(tiny_llama(), "acme/tone", revision="v2/new")
    assert close(logits(again), one.answer)
    model.load_adapter(one.folder, "two")
    model.push_to_hub("acme/tone", token=MINE, revision="v2/new")
    assert f"two/{WEIGHTS}" in visible(repo, "v2/new")


def test_who_may_only_read_can_open_a_pull_request(there: HubServer, model: AdaptedModel) -> None:
    there.commit("acme/tone", {CARD: b"# Mine\n"})
    before = dict(there.repos["acme/tone"].refs)
    denied = refused(model, token=READS)
    assert denied.code == "AD220" and "create_pr=True" in str(denied)
    for number, branch in ((1, None), (2, "main")):
        url = model.push_to_hub("acme/tone", token=READS, create_pr=True, revision=branch)
        assert url == f"{there.endpoint}/acme/tone/discussions/{number}"
    repo = there.repos["acme/tone"]
    assert set(visible(repo, "refs/pr/1")) == {CARD, CONFIG, WEIGHTS}
    assert repo.refs["main"] == before["main"]
    model.push_to_hub("acme/tone", token=MINE, revision="refs/pr/1", tags=["more"])
    assert b"- more" in visible(repo, "refs/pr/1")[CARD]
    there.commit("acme/tone", {}, branch="dev")
    model.push_to_hub("acme/tone", token=READS, create_pr=True, revision="dev")
    assert set(visible(repo, "refs/pr/3")) == {CARD, CONFIG, WEIGHTS}
    error = refused(model, token=READS, create_pr=True, revision="other")
    assert error.code == "AD212" and "Check revision=" in str(error)


@pytest.mark.parametrize(
    ("name", "token", "code", "said"),
    [
        ("acme/tone", "hf_wrong45678", "AD221", "rejected the token (HTTP 401)"),
        ("acme/tone", "hf_wrong\n", "AD221", "the token is empty, or has characters that"),
        ("acme/tone", "hf_wrong\u00e9", "AD221", "the token is empty, or has characters that"),
        ("acme/tone", "", "AD221", "the token is empty, or has characters that"),
        ("acme/tone", False, "AD221", "no token found for 127.0.0.1"),
        ("acme/tone", True, "AD221", "no token found for 127.0.0.1"),
        ("acme/open", False, "AD221", "no token found for 127.0.0.1"),
        ("acme/tone", READS, "AD220", "may not write there (HTTP 403)"),
        ("other/tone", MINE, "AD220", "under the namespace 'other'"),
    ],
)
def test_a_token_that_may_not_write_is_a_finding(
    there: HubServer, model: AdaptedModel, name: str, token: str | bool, code: str, said: str
) -> None:
    there.commit("acme/open", {CARD: b"# Open\n"})
    error = refused(model, name, token=token)
    assert error.code == code and said in str(error)
    assert "hf_wrong" not in str(error) and name in str(error)
    assert set(there.repos) == {"acme/open"} and len(there.repos["acme/open"].commits) == 1
    model.push_to_hub("acme/tone", token=MINE)


def test_the_place_of_a_wrong_token_is_said(
    there: HubServer, model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "found: the token in storage_options, or token=" in str(refused(model, token="hf_no"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong45678")
    assert "found: the token in HF_TOKEN" in str(refused(model, token=None))


@pytest.mark.parametrize("where", ["/preupload/", "/lfs/objects/batch", "/lfs-put/", "/commit/"])
def test_a_push_that_breaks_off_leaves_the_files_as_they_were(
    there: HubServer, model: AdaptedModel, where: str
) -> None:
    old = there.commit("acme/tone", {CARD: b"# Mine\n"})
    there.fail(403, where)
    assert refused(model).code == "AD220"
    assert there.repos["acme/tone"].refs == {"main": old}
    there.heal()
    model.push_to_hub("acme/tone", token=MINE)
    assert set(visible(there.repos["acme/tone"])) == {CARD, CONFIG, WEIGHTS}


def test_a_card_that_cannot_be_read_is_not_taken_for_none(
    there: HubServer, model: AdaptedModel
) -> None:
    """A copy in the Hub's cache is older than what the repository has; none is no card there."""
    there.commit("acme/tone", {CARD: b"# Mine\n"})
    there.fail(403, "/resolve/")
    assert refused(model).code == "AD220"
    there.heal()
    model.push_to_hub("acme/tone", token=MINE)
    assert visible(there.repos["acme/tone"])[CARD].endswith(b"# Mine\n")
    there.commit("acme/tone", {CARD: b"# Mine, newer\n"})
    model.push_to_hub("acme/tone", token=MINE)
    assert visible(there.repos["acme/tone"])[CARD].endswith(b"# Mine, newer\n")


def test_a_card_with_invalid_metadata_is_not_overwritten(
    there: HubServer, model: AdaptedModel
) -> None:
    for card in (b"---\ntags: [a\n---\n# Mine\n", b"\xff\xfe"):
        there.commit("acme/tone", {CARD: card})
        error = refused(model)
        assert error.code == "AD935" and "Correct README.md" in str(error)
        assert visible(there.repos["acme/tone"]) == {CARD: card}
    error = refused(model, "acme/other", tags=[""])  # the Hub's own check
    assert error.code == "AD935" and '"tags" must be an array of strings' in str(error)
    assert visible(there.repos["acme/other"]) == {}


def test_files_that_gitignore_leaves_out_are_not_lost_silently(
    there: HubServer, model: AdaptedModel
) -> None:
    old = there.commit("acme/tone", {".gitignore": b"*.safetensors\n"})
    error = refused(model)
    assert error.code == "AD935" and f"found: {WEIGHTS}" in str(error)
    assert there.repos["acme/tone"].refs == {"main": old}
    there.commit("acme/tone", {".gitignore": b"*.log\n"})
    model.push_to_hub("acme/tone", token=MINE)


def test_commits_at_the_same_time_are_all_kept(there: HubServer, one: Saved) -> None:
    there.commit("acme/tone", {CARD: b"# Mine\n"})
    models = []
    for name in ("a", "b", "c"):
        models.append(AdaptedModel.from_pretrained(tiny_llama(), one.folder, adapter_name=name))
    start = threading.Barrier(len(models))

    def push(model: AdaptedModel) -> None:
        start.wait()
        model.push_to_hub("acme/tone", token=MINE, tags=model.active_adapters())

    threads = [threading.Thread(target=push, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = visible(there.repos["acme/tone"])
    assert {f"{name}/{WEIGHTS}" for name in "abc"} <= set(files)
    tags = ModelCard(files[CARD].decode()).data.tags
    assert tags is not None and {"a", "b", "c"} <= set(tags)


@pytest.mark.parametrize("status", [409, 412])
def test_a_commit_that_is_always_overtaken_is_a_finding(
    there: HubServer, model: AdaptedModel, status: int
) -> None:
    there.fail(status, "/commit/", times=2)
    model.push_to_hub("acme/tone", token=MINE)
    there.fail(status, "/commit/")
    error = refused(model, tags=["more"])
    assert error.code == "AD935" and f"others changed it during the upload (HTTP {status})" in str(
        error
    )


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (429, "AD222", "hint: Wait 7 seconds, and upload again."),
        (500, "AD223", "hint: Run again later."),
        (400, "AD935", "found: the server is not well"),
        (404, "AD935", "found: the server is not well"),
    ],
)
def test_other_refusals_have_their_codes(
    there: HubServer, model: AdaptedModel, status: int, code: str, said: str
) -> None:
    there.fail(status, "/commit/")
    error = refused(model)
    assert error.code == code and said in str(error)


@pytest.mark.parametrize(
    ("mode", "where", "code"),
    [
        ("other", "/api/repos/create", "AD227"),
        ("other", "/preupload/", "AD227"),
        ("cut", "/commit/", "AD226"),
    ],
)
def test_answers_that_are_broken_have_their_codes(
    there: HubServer, model: AdaptedModel, mode: str, where: str, code: str
) -> None:
    there.fail(mode, where)
    assert refused(model).code == code
    there.heal()
    close_session()  # the server closed the connection
    url = model.push_to_hub("acme/tone", token=MINE)
    repo = there.repos["acme/tone"]
    assert url.endswith(repo.refs["main"]) and len(repo.commits) == 2  # also where it had arrived


def test_without_a_network_nothing_is_asked(
    there: HubServer, model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as now:
        now.setenv("HF_HUB_OFFLINE", "1")
        error = refused(model)
        assert error.code == "AD233" and isinstance(error, OfflineError)
        assert "HF_HUB_OFFLINE" in str(error)
    assert there.requests == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused(model)
    assert error.code == "AD224" and isinstance(error, OfflineError)
    assert "cannot connect to 127.0.0.1:9" in str(error)
    assert "HF_ENDPOINT, and upload again." in str(error)


def test_names_and_options_that_are_wrong_are_refused_before_anything_is_sent(
    there: HubServer, model: AdaptedModel
) -> None:
    for name in ("not an id!", "a/b/c", "acme/tone.git", "acme/..", "", "acme/"):
        error = refused(model, name)
        assert error.code == "AD932" and isinstance(error, UsageError)
    assert refused(model, max_shard_size="1GB").code == "AD932"
    error = refused(model, selected_adapters=["nobody"])
    assert error.code == "AD730" and isinstance(error, RoutingError)
    assert there.requests == []
