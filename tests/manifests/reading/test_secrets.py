"""Secrets in a manifest are found everywhere, and never repeated."""

from __future__ import annotations

import pytest
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.manifest import read_manifest
from adapterdock.manifests.reading.document import read_document
from adapterdock.manifests.reading.secrets import HIDDEN, redact
from support.manifest_files import HEADER, Desk

SECRETS = {
    "hugging face": "hf_" + "aB3" * 12,
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws session": "ASIA" + "IOSFODNN7EXAMPLE",
    "github": "ghp_" + "x1Y2" * 9,
    "github fine": "github_pat_" + "11ABCDEFG0" * 4,
    "gitlab": "glpat-" + "x" * 20,
    "slack": "xoxb-" + "123456789012-abcdef",
    "openai": "sk-proj-" + "a1B2" * 8,
    "google": "AIza" + "S" * 35,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "private key": "-----BEGIN RSA PRIVATE KEY-----",
    "azure": "AccountKey=" + "abcdefgh12345678",
}
PLACES = {
    "a description": "description: 'see {}'\n",
    "an adapter's note": "adapters: {{a: {{source: ./a, x-note: ['{}']}}}}\n",
    "a top note": "x-n: {{deep: {{deeper: '{}'}}}}\n",
    "a comment": "name: desk   # {}\n",
    "a key": "x-n: {{'{}': 1}}\n",
    "a name": "adapters: {{'{}': {{source: ./a}}}}\n",
    "a source": "adapters: {{a: {{source: 's3://b/{}'}}}}\n",
    "an option": "base: {{storage_options: {{endpoint_url: '{}'}}}}\n",
    "an unknown key's value": "base: {{nonsense: '{}'}}\n",
    "a wrong value": "base: {{dtype: '{}'}}\n",
    "a member": "compositions: {{m: {{of: {{'{}': 1}}}}}}\n",
    "a duplicate key": "x-n: {{'{0}': 1, '{0}': 2}}\n",
    "extends": "extends: '{}'\n",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_token_is_found_anywhere_and_not_repeated(secret: str, place: str, desk: Desk) -> None:
    text = HEADER + place.format(secret)
    findings = desk.findings(text)
    found = [f for f in findings if f.code == "AD150"]
    assert found
    line = text.splitlines()[1]
    shown = secret.removeprefix("AccountKey=")
    assert (found[0].where.line, found[0].where.column) == (2, line.index(shown) + 1)
    for finding in findings:
        assert shown not in repr(finding)
        assert shown not in str(finding.as_dict())


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter22@host/a",
        "https://hunter22@host/a",
        "s3://AAAA:hunter22@bucket/a",
        "https://host/a?X-Amz-Signature=hunter22&x=1",
        "https://host/a?x=1&sig=hunter22",
        "https://host/a?access_token=hunter22",
    ],
)
def test_urls_with_a_secret_are_refused_everywhere(url: str, desk: Desk) -> None:
    for place in PLACES.values():
        findings = desk.findings(HEADER + place.format(url))
        assert "AD150" in {f.code for f in findings}, place
        assert not any("hunter22" in repr(f) for f in findings), place


def test_an_escaped_secret_is_found_too(desk: Desk) -> None:
    findings = desk.findings(HEADER + 'description: "\\x68f_' + "a" * 34 + '"\n')
    assert [f.code for f in findings] == ["AD150"]


@pytest.mark.parametrize(
    "options",
    [
        *("{key: me}", "{secret: hunter22}", "{token: hunter22}", "{password: hunter22}"),
        "{client_kwargs: {aws_secret_access_key: hunter22}}",
        "{client_kwargs: {headers: {Authorization: Bearer hunter22}}}",
        *("{accounts: [{sas_token: hunter22}]}", "{secret: '${MY_SECRET}'}"),
        *("{secret: '${PLAIN:-hunter22}'}", "{connection_string: hunter22}"),
        "{password: {deep: hunter22}}",
    ],
)
def test_credentials_in_storage_options_are_refused(options: str, desk: Desk) -> None:
    for text in (
        f"base: {{storage_options: {options}}}\n",
        f"adapters: {{a: {{source: ./a, storage_options: {options}}}}}\n",
    ):
        findings = desk.findings(HEADER + text, {"MY_SECRET": "hunter22"})
        assert {f.code for f in findings} == {"AD151"}
        assert not any("hunter22" in repr(f) for f in findings)
        assert "environment" in str(findings[0].hint)


def test_options_that_are_not_credentials_are_kept(desk: Desk) -> None:
    text = HEADER + (
        "base: {storage_options: {anon: true, token: anon, key: null, endpoint_url: http://h:9,"
        " client_kwargs: {region_name: eu}, x-other: 1}}\n"
    )
    assert desk.read(text).manifest.base.storage_options == {
        "anon": True,
        "token": "anon",
        "key": None,
        "endpoint_url": "http://h:9",
        "client_kwargs": {"region_name": "eu"},
        "x-other": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "description: the hf_transfer option, sk-learn, AKIAlike and xoxo",
        "description: hf_internal_testing_tiny_random_llama_model",
        "adapters: {a: {source: 'hf://acme/tone@v2'}}",
        "adapters: {a: {source: 'abfss://box@account.dfs.core.windows.net/a'}}",
        "adapters: {a: {source: 'sftp://me@host/a'}}",
        "description: mail me@host.example, see https://host/a?page=2",
        "description: ratio 1:2, s3://bucket/key:with@colon",
        "x-n: {password: see the vault}",
    ],
)
def test_text_that_only_resembles_a_secret_is_allowed(text: str, desk: Desk) -> None:
    desk.read(HEADER + text + "\n")


def test_secrets_of_a_file_that_is_not_yaml_are_not_shown(desk: Desk) -> None:
    secret = SECRETS["github"]
    for text in (
        f"a: [{secret}",
        f"{secret}: 1\n{secret}: 2\n",
        f"a: *{secret}\n",
        f"a: b: {secret}",
    ):
        assert not any(secret in repr(f) for f in desk.findings(text))


def test_the_yaml_reader_does_not_show_secrets() -> None:
    secret = SECRETS["github"]
    with pytest.raises(ManifestError) as caught:
        read_document(f"{secret}: 1\n{secret}: 2\n".encode())
    assert caught.value.code == "AD111"
    assert secret not in repr(caught.value)


def test_secrets_in_a_mapping_in_memory_are_found() -> None:
    secret = SECRETS["aws"]
    data = {"version": 1, "x-n": [secret], "base": {"storage_options": {"secret": "hunter22"}}}
    with pytest.raises(ManifestError) as caught:
        read_manifest(data, environ={})
    assert {f.code for f in caught.value.findings} == {"AD150", "AD151"}
    assert secret not in repr(caught.value)
    assert "hunter22" not in repr(caught.value)


def test_a_secret_is_reported_once(desk: Desk) -> None:
    findings = desk.findings(HEADER + f"description: {SECRETS['github']}\n")
    assert len(findings) == 1
    assert findings[0].where.dotted == "description"


def test_redacting_changes_nothing_else() -> None:
    assert redact("see https://me:pw@host/a and " + SECRETS["aws"]) == (
        f"see https://{HIDDEN}@host/a and {HIDDEN}"
    )
    assert redact("nothing here") == "nothing here"
