"""Names of pages, and which texts become links."""

from __future__ import annotations

import pytest
from adapterdock.cli.pages.addresses import page_names, web_link


def test_a_name_becomes_the_file_of_its_page() -> None:
    assert page_names([("team", "support/refunds")]) == {
        ("team", "support/refunds"): "support-refunds.html"
    }


def test_names_that_differ_only_in_case_or_signs_have_pages_of_their_own() -> None:
    keys = [("a", "Tone"), ("a", "tone"), ("b", "tone"), ("a", "to/ne"), ("a", "to-ne")]
    pages = page_names(keys)
    assert len({page.casefold() for page in pages.values()}) == len(keys)
    assert pages == {key: page_names(reversed(keys))[key] for key in keys}


@pytest.mark.parametrize("name", ["con", "NUL", "???", "../../etc", "a" * 500, "x-0123456789"])
def test_every_name_gives_a_file_name_that_is_safe_everywhere(name: str) -> None:
    (page,) = page_names([("team", name)]).values()
    assert page.removesuffix(".html").replace("-", "").isalnum()
    assert page not in ("con.html", "nul.html", "x-0123456789.html")
    assert len(page) < 90


@pytest.mark.parametrize("text", ["https://example.org/a?b=c#d", "http://localhost:8080/x"])
def test_an_address_of_the_web_is_a_link(text: str) -> None:
    assert web_link(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "//example.org",
        ),
        *("https://user:word@example.org", "https://", "https://a b", "https://[bad", "hf://a/b"),
        *("https://example.org\n", " https://example.org", "https://ex\u0430mple.org"),
        *("https://host:99999999/", "https://a'b", "plain text"),
    ],
)
def test_anything_else_stays_text(text: str) -> None:
    assert web_link(text) is None
