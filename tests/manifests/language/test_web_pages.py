"""An address copied from a browser is refused with the source that it means."""

from __future__ import annotations

import pytest
from adapterdock.manifests.language.source import Source, SourceSyntaxError

GITHUB, CONSOLE = "https://github.com/o/r", "https://eu-west-1.console.aws.amazon.com/s3"


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://huggingface.co/org/name", "hf://org/name"),
        ("http://www.HuggingFace.co:443/org/name/", "hf://org/name"),
        ("https://huggingface.co/gpt2", "hf://gpt2"),
        ("https://huggingface.co/gpt2/tree/main", "hf://gpt2"),
        ("https://hf.co/org/name/tree/main/a/b", "hf://org/name/a/b"),
        ("https://hf.co/org/name/tree/refs%2Fpr%2F1/a", "hf://org/name@refs/pr/1/a"),
        ("https://hf.co/org/name/blob/v1.0/a/adapter_config.json", "hf://org/name@v1.0/a"),
        ("https://hf.co/org/name/resolve/main/x.safetensors?download=true", "hf://org/name"),
        ("https://hf.co/org/name/resolve/v2", "hf://org/name@v2"),
        ("https://hf.co/org/name/discussions/3#abc", "hf://org/name"),
        ("https://hf.co/org/name/tree/a..b/c", "hf://org/name"),
        ("https://hf.co/datasets/org/name", "hf://org/name"),
        ("huggingface.co/org/name", "hf://org/name"),
        ("hf://huggingface.co/org/name/tree/v1", "hf://org/name@v1"),
        ("hf://https://hf.co/org/name", "hf://org/name"),
        (f"{GITHUB}/tree/main/a/b", f"{GITHUB}/raw/main/a/b"),
        (f"{GITHUB}/blob/v1/a/adapter_config.json", f"{GITHUB}/raw/v1/a"),
        (GITHUB, f"{GITHUB}/raw/BRANCH/FOLDER"),
        (f"{CONSOLE}/buckets/bkt?region=eu-west-1&prefix=a/b%20c/&x=1", "s3://bkt/a/b c"),
        (f"{CONSOLE}/object/bkt?prefix=a/adapter_config.json", "s3://bkt/a"),
        ("https://s3.console.aws.amazon.com/s3/buckets/bkt", "s3://bkt"),
        ("https://console.cloud.google.com/storage/browser/bkt/a;tab=objects", "gs://bkt/a"),
    ],
)
def test_the_address_of_a_page_is_refused_with_the_source_it_means(
    address: str, meant: str
) -> None:
    with pytest.raises(SourceSyntaxError, match="this is a page of") as caught:
        Source.parse(address)
    assert caught.value.instead == meant
    assert str(Source.parse(meant)) == meant


@pytest.mark.parametrize(
    "address",
    [
        f"{GITHUB}/raw/main/a",
        f"{GITHUB}/releases/download/v1",
        "https://raw.githubusercontent.com/o/r/main/a",
        "https://huggingface.co.example.com/org/name",
        "https://example.com/huggingface.co/org/name",
        "https://bkt.s3.eu-west-1.amazonaws.com/a/b",
        "./huggingface.co/org/name",
        "s3://huggingface.co/org/name",
        "hf://hf/co",
    ],
)
def test_an_address_of_files_stays_a_source(address: str) -> None:
    assert str(Source.parse(address)) == address
