"""Variables: where they are expanded, to which types, and that secrets are refused."""

from __future__ import annotations

import pytest
from adapterdock.manifests.reading.nodes import scalars
from adapterdock.manifests.reading.secrets import is_secret_name
from support.manifest_files import HEADER, Desk

WITH_ALL = HEADER + (
    "base:\n"
    "  model: hf://${ORG}/base\n"
    "  dtype: ${DTYPE:-auto}\n"
    "  device_map: {lm_head: '${DEVICE}'}\n"
    "  storage_options: {endpoint_url: '${ENDPOINT}'}\n"
    "adapters:\n"
    "  a:\n"
    "    source: s3://${BUCKET:-team}/a$$b\n"
    "    dtype: ${DTYPE:-float32}\n"
    "    storage_options: {client_kwargs: {region_name: ['${REGION:-eu}']}}\n"
    "registries: {team: 's3://${BUCKET:-team}/r'}\n"
    "mirrors: {'hf://': 's3://${BUCKET:-team}/hf/'}\n"
)
ENVIRON = {"ORG": "acme", "DEVICE": "cpu", "ENDPOINT": "http://127.0.0.1:9", "DTYPE": ""}


def test_variables_work_in_every_place_that_differs_between_machines(desk: Desk) -> None:
    manifest = desk.read(WITH_ALL, ENVIRON).manifest
    assert str(manifest.base.model) == "hf://acme/base"
    assert manifest.base.dtype == "auto"
    assert manifest.base.device_map == {"lm_head": "cpu"}
    assert manifest.base.storage_options == {"endpoint_url": "http://127.0.0.1:9"}
    adapter = manifest.adapters["a"]
    assert str(adapter.source) == "s3://team/a$b"
    assert adapter.dtype == "float32"
    assert adapter.storage_options == {"client_kwargs": {"region_name": ["eu"]}}
    assert str(manifest.registries["team"]) == "s3://team/r"
    assert manifest.mirrors == {"hf://": "s3://team/hf/"}


def test_used_variables_are_reported(desk: Desk) -> None:
    read = desk.read(WITH_ALL, ENVIRON)
    assert read.variables == {
        "ORG": "acme",
        "DTYPE": "float32",
        "DEVICE": "cpu",
        "ENDPOINT": "http://127.0.0.1:9",
        "BUCKET": "team",
        "REGION": "eu",
    }
    model = dict(scalars(read.root))["base", "model"]
    assert (model.text, model.written) == ("hf://acme/base", "hf://${ORG}/base")
    assert model.variables == ("ORG",)
    assert model.spot.line == 3


def test_expanded_values_are_typed_without_quotes_and_text_in_quotes(
    desk: Desk,
) -> None:
    text = HEADER + "base:\n  storage_options:\n    a: ${N}\n    b: '${N}'\n    c: ${T:-true}\n"
    options = desk.read(text, {"N": "5"}).manifest.base.storage_options
    assert options == {"a": 5, "b": "5", "c": True}


def test_an_option_that_expands_to_nothing_is_left_out(desk: Desk) -> None:
    text = HEADER + "base: {storage_options: {endpoint_url: '${S3:-}', region: ''}}\n"
    assert desk.read(text).manifest.base.storage_options == {"region": ""}


def test_an_empty_variable_without_default_is_empty_text(desk: Desk) -> None:
    text = HEADER + "adapters: {a: {source: './a${SUFFIX}'}}\n"
    assert str(desk.read(text, {"SUFFIX": ""}).manifest.adapters["a"].source) == "./a"


def test_notes_may_contain_anything(desk: Desk) -> None:
    read = desk.read(HEADER + "x-run: 'echo ${HOME}'\nadapters: {x-all: '${HOME}'}\n")
    assert read.extras == {"x-run": "echo ${HOME}", "adapters.x-all": "${HOME}"}


def test_a_misplaced_variable_is_refused_with_the_allowed_places(desk: Desk) -> None:
    finding = desk.findings(HEADER + "description: for ${USER}\n")[0]
    assert finding.code == "AD131"
    assert "storage_options" in str(finding.expected)


@pytest.mark.parametrize(
    "text", ["$A", "${A", "${}", "${1A}", "${A:?no}", "${A:-${B}}", "a$", "${A-b}"]
)
def test_other_shell_forms_are_refused(text: str, desk: Desk) -> None:
    found = desk.findings(HEADER + f"adapters: {{a: {{source: './{text}'}}}}\n", {"A": "x"})
    assert {f.code for f in found} == {"AD132"}


def test_an_unset_variable_is_named_once(desk: Desk) -> None:
    found = desk.findings(HEADER + "base: {dtype: '${DTYPE}'}\n")
    assert [f.code for f in found] == ["AD130"]
    assert "DTYPE is not set" in found[0].message
    assert "${DTYPE:-default}" in str(found[0].hint)


def test_a_wrong_value_is_shown_as_written(desk: Desk) -> None:
    finding = desk.findings(HEADER + "base: {dtype: '${DTYPE}'}\n", {"DTYPE": "fp16"})[0]
    assert (finding.code, finding.found) == ("AD123", '"${DTYPE}"')


@pytest.mark.parametrize(
    "text",
    [
        "adapters: {a: {source: 'https://h/${API_TOKEN}'}}",
        *("adapters: {a: {source: '${API_TOKEN}'}}", "base: {dtype: '${API_TOKEN}'}"),
        "base: {device_map: '${API_TOKEN:-auto}'}",
        "base: {storage_options: {endpoint_url: 'https://me:${API_TOKEN}@h'}}",
        "base: {storage_options: {secret: '${API_TOKEN}'}}",
        "base: {storage_options: {secret: '${PLAIN}'}}",
        "adapters: {a: {source: 'https://me:${PLAIN}@h/a'}}",
        "adapters: {a: {source: 'https://h/a?sig=${PLAIN}'}}",
        *("adapters: {a: {source: 's3://h/${HUB}'}}", "base: {dtype: '${HUB}'}"),
        *("name: ${API_TOKEN}", "mirrors: {'hf://': '${API_TOKEN}'}"),
    ],
)
def test_the_value_of_a_secret_variable_is_never_printed(text: str, desk: Desk) -> None:
    secret = "s3kr1t-Value-0123456789"
    token = "hf_" + "Q" * 34
    environ = {"API_TOKEN": secret, "PLAIN": secret, "HUB": token}
    for finding in desk.findings(HEADER + text + "\n", environ):
        assert secret not in repr(finding)
        assert token not in repr(finding)


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "secret", "AWS_SECRET_ACCESS_KEY", "aws_access_key_id", "DB_PASSWORD"),
        *("apiKey", "SSECustomerKey", "key", "accountKey", "X-API-Key", "connection_string"),
        "Authorization",
    ],
)
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZER_DIR", "KEY_PREFIX", "endpoint_url", "anon", "S3_BUCKET", "PASSENGERS"),
        *("MONKEY", "sse_kms_key_id", "AUTHOR", "use_ssl", "secretary"),
    ],
)
def test_names_that_contain_such_a_word_as_a_part_are_not_secrets(name: str) -> None:
    assert not is_secret_name(name)
