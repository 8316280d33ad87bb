"""The site in a real browser, from files: clicked through, measured, and photographed.

``make test-site`` runs these. They need playwright and axe (which it installs), and Chromium
(``apt-get install chromium``, or its program's path in ``ADAPTERDOCK_CHROMIUM``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from adapterdock.cli.pages.facts import Site
from adapterdock.cli.pages.out_folder import write_site
from adapterdock.cli.pages.render import render
from support.catalogue import catalogue, evil

pytestmark = pytest.mark.site

FIRST_PAINT, FILTER = 1000, 50
"""Milliseconds, with 2,000 adapters."""
PICTURES = Path(__file__).parents[3] / "docs" / "pictures"
LARGEST_PICTURE = 150_000
WIDE, PHONE = {"width": 1280, "height": 820}, {"width": 390, "height": 780}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("ADAPTERDOCK_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if program is None:
        pytest.fail("Chromium is missing: apt-get install chromium, or set ADAPTERDOCK_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is missing: run `make test-site`, which installs it")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with 210 adapters."""
    return written(tmp_path_factory.mktemp("small"), catalogue(210))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with 2,000 adapters; only its list is written."""
    site = catalogue(2000)
    out = tmp_path_factory.mktemp("large")
    write_site(out, {p: raw for p, raw in render(site).items() if not p.startswith("adapters/")})
    return out


def written(out: Path, site: Site) -> Path:
    write_site(out, render(site))
    return out


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """``visit(folder, page, **options of the window)``: a page that logged no error."""
    contexts: list[Any] = []
    errors: list[str] = []

    def go(folder: Path, page: str = "index.html", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on(
            "console", lambda said: errors.append(said.text) if said.type == "error" else None
        )
        opened.on(
            "request",
            lambda asked: None if asked.url.startswith("file:") else errors.append(asked.url),
        )
        opened.goto(f"{folder.as_uri()}/{page}")
        return opened

    yield go
    for context in contexts:
        context.close()
    assert errors == []


def until(page: Any, condition: str) -> None:
    """Wait for it. (Playwright's own way evaluates text inside the page, which it forbids.)"""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"it never came: {condition}")


def names(page: Any) -> list[str]:
    return page.locator(".rows > li.in .what > a").all_inner_texts()


def said(page: Any) -> str:
    page.wait_for_load_state()  # a link's page may be here before its script ran
    return page.locator("[data-count]").inner_text()


def test_words_find_adapters_by_any_of_their_texts(small: Path, visit: Any) -> None:
    page = visit(small)
    assert said(page) == "210 adapters" and len(names(page)) == 60
    page.fill("#q", "refunds legal")
    assert names(page) == ["legal/refunds", "legal/refunds-2"]
    assert said(page) == "2 of 210 adapters"
    page.fill("#q", "PAYMENTS")
    assert said(page).startswith("42 of")
    page.fill("#q", "nothing-like-this")
    assert page.get_by_text("No adapter matches.").is_visible()
    page.fill("#q", "")
    assert said(page) == "210 adapters" and not page.get_by_text("No adapter matches.").is_visible()


def test_what_is_found_comes_right_below_the_search(small: Path, visit: Any) -> None:
    page = visit(small)

    def places() -> list[float]:
        chosen = ("#q", "[data-count]", ".rows > li.in")
        return [page.locator(one).first.bounding_box()["y"] for one in chosen]

    before = places()
    page.fill("#q", "refunds legal")
    assert places() == before


def test_filters_are_one_of_a_kind_and_all_of_kinds(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_label("IA3").check()
    assert said(page) == "30 of 210 adapters"
    page.get_by_label("LOHA").check()
    assert said(page) == "60 of 210 adapters"
    page.get_by_label("MIT").check()
    assert said(page) == "12 of 210 adapters"
    assert page.locator("[data-chosen]").inner_text() == "(3 chosen)"
    licence = page.locator("label", has_text="Apache-2.0")
    assert licence.locator(".n").inner_text() == "12"  # what it would add
    page.get_by_role("button", name="Clear all filters").click()
    assert said(page) == "210 adapters"


def test_the_address_leads_to_the_same_list(small: Path, visit: Any) -> None:
    page = visit(small)
    page.fill("#q", "tone")
    page.get_by_label("IA3").check()
    page.select_option("[data-sort]", "new")
    until(page, "location.hash.includes('sort=new')")
    found = names(page)
    again = visit(small, f"index.html{page.evaluate('location.hash')}")
    assert names(again) == found != []
    assert again.input_value("#q") == "tone" and again.get_by_label("IA3").is_checked()
    again.evaluate("location.hash = '#q=refunds+legal'")
    until(again, "document.querySelectorAll('.rows > li.in').length === 2")


def test_more_rows_come_when_they_are_asked_for(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_role("button", name="Show more").click()
    assert len(names(page)) == 210
    assert page.evaluate("document.activeElement.textContent") == names(page)[60]
    assert not page.get_by_role("button", name="Show more").is_visible()


def test_rows_are_sorted_by_date_and_rank(small: Path, visit: Any) -> None:
    page = visit(small)
    page.select_option("[data-sort]", "new")
    dates = page.eval_on_selector_all(".rows > li.in", "rows => rows.map(row => row.dataset.new)")
    assert dates == sorted(dates, reverse=True)
    page.select_option("[data-sort]", "rank")
    ranks = page.eval_on_selector_all(".rows > li.in", "rows => rows.map(row => +row.dataset.rank)")
    assert ranks == sorted(ranks)


def test_everything_can_be_done_with_the_keyboard(small: Path, visit: Any) -> None:
    page = visit(small)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("/")
    page.keyboard.type("refunds legal")
    assert len(names(page)) == 2 and page.input_value("#q") == "refunds legal"
    page.locator(".rows > li.in a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/adapters/legal-refunds.html")
    assert page.get_by_role("heading", level=1).inner_text().startswith("legal/refunds")


def test_a_step_to_the_content_keeps_what_is_searched(small: Path, visit: Any) -> None:
    page = visit(small, "index.html#q=refunds+legal")
    before = names(page)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    until(page, "location.hash.startsWith('#q=refunds')")
    assert names(page) == before and len(before) == 2
    assert page.input_value("#q") == "refunds legal"
    page.evaluate("location.hash = ''")  # an address without a search clears it
    until(page, "document.querySelector('#q').value === ''")


def test_tags_of_an_adapter_lead_to_others_with_it(small: Path, visit: Any) -> None:
    page = visit(small, "adapters/legal-refunds.html")
    page.get_by_role("link", name="refunds", exact=True).click()
    assert said(page) == "14 of 210 adapters"
    assert all("refunds" in name for name in names(page))


@pytest.mark.parametrize("clipboard", [True, False])
def test_the_lines_for_a_manifest_are_copied(small: Path, visit: Any, clipboard: bool) -> None:
    page = visit(
        small, "adapters/legal-refunds.html", permissions=["clipboard-read", "clipboard-write"]
    )
    if not clipboard:  # a browser that does not offer it to pages on the disk
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    lines = page.locator(".copy code").inner_text()
    page.evaluate(
        "document.addEventListener('copy', () => { window.copied = String(getSelection()) })"
    )
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    found = page.evaluate("navigator.clipboard ? navigator.clipboard.readText() : window.copied")
    assert found.strip() == lines.strip() and "registry://team/legal/refunds@" in found


def test_colours_follow_the_system_until_a_person_chooses(small: Path, visit: Any) -> None:
    def paper(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = visit(small, color_scheme="dark")
    light = visit(small, color_scheme="light")
    night, day = paper(dark), paper(light)
    assert night != day
    button = light.locator("[data-theme-button]")
    button.click()
    assert paper(light) == day and button.get_attribute("aria-label") == "Colours: light"
    button.click()
    assert paper(light) == night and button.inner_text() == "Dark"
    light.goto(f"{small.as_uri()}/adapters/legal-refunds.html")
    assert paper(light) == night  # remembered on other pages
    light.locator("[data-theme-button]").click()
    assert paper(light) == day


def test_the_matrix_is_searched_by_name(small: Path, visit: Any) -> None:
    page = visit(small, "matrix.html")
    page.fill("[data-matrix-search]", "refunds legal")
    shown = page.locator("tbody tr:visible th").all_inner_texts()
    assert shown == ["legal/refunds", "legal/refunds-2"]


def test_without_scripts_everything_is_there(small: Path, visit: Any) -> None:
    page = visit(small, java_script_enabled=False)
    assert page.locator(".rows > li").count() == 210
    assert page.locator(".rows > li").last.is_visible()
    assert not page.locator("#q").is_visible()
    assert page.locator("noscript .note").is_visible()


PAGES = ("index.html", "adapters/support-refunds.html", "matrix.html", "compositions.html")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_no_page_scrolls_to_the_side(small: Path, visit: Any, page: str, width: int) -> None:
    shown = visit(small, page, viewport={"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("page", [*PAGES, "index.html#q=nothing-like-this"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [WIDE, PHONE])
def test_axe_finds_no_serious_fault(
    small: Path, visit: Any, page: str, scheme: str, window: dict[str, int]
) -> None:
    import axe_playwright_python

    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    shown = visit(small, page, color_scheme=scheme, viewport=window, bypass_csp=True)
    shown.evaluate(axe)
    found = shown.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")[
        "violations"
    ]
    faults = [
        (one["impact"], one["id"], one["nodes"][0]["html"][:200])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert faults == [], json.dumps(faults, indent=1)


def test_the_texts_of_strangers_run_nothing(tmp_path: Path, visit: Any) -> None:
    made = evil()
    folder = written(tmp_path / "evil", made)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    assert len(paths) == 6
    for path in paths:
        page = visit(folder, path)
        page.on("dialog", lambda dialog: pytest.fail(f"an alert: {dialog.message}"))
        assert page.evaluate("document.scripts.length") == 1
        assert page.evaluate("document.images.length") == 0


def test_scripts_of_others_are_forbidden(small: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{small.as_uri()}/index.html")
    page.evaluate(
        "() => { const one = document.createElement('script'); one.textContent = 'window.bad = 1';"
        " document.body.append(one); }"
    )
    assert page.evaluate("window.bad") is None
    page.close()


def test_two_thousand_adapters_are_painted_and_filtered_quickly(large: Path, visit: Any) -> None:
    paints: list[float] = []
    for _ in range(3):
        page = visit(large)
        until(page, "performance.getEntriesByName('first-contentful-paint').length")
        paints.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
    times: dict[str, float] = page.evaluate(
        """async () => {
          const box = document.querySelector('#q'), times = {};
          async function timed(name, act) {
            await new Promise(done => setTimeout(done, 60));
            const start = performance.now();
            act();
            document.body.offsetHeight;  // laid out
            const took = performance.now() - start;
            times[name] = Math.min(times[name] ?? took, took);  // other work slows single tries
          }
          const type = word => () => {
            box.value = word;
            box.dispatchEvent(new Event('input', {bubbles: true}));
          };
          for (let tries = 0; tries < 3; tries++) {
            for (const word of ['x', 'r', 're', 'refunds', 'refunds legal', 'zzz', '', 'mit'])
              await timed(word, type(word));
            for (const one of [...document.querySelectorAll('input[data-token]')].slice(0, 8))
              await timed(one.value, () => one.click());
          }
          return times;
        }"""
    )
    worst = max(times, key=lambda name: times[name])
    print(
        f"\n2,000 adapters: first paint {min(paints):.0f} ms, filter at most {times[worst]:.0f} ms"
    )
    assert min(paints) < FIRST_PAINT
    assert times[worst] < FILTER, (worst, times)


@pytest.mark.parametrize(
    ("name", "page", "options"),
    [
        ("site-list", "index.html", {}),
        ("site-list-dark", "index.html#q=refunds", {"color_scheme": "dark"}),
        (
            "site-adapter",
            "adapters/support-invoices.html",
            {"viewport": {"width": 1280, "height": 1200}},
        ),
        ("site-matrix", "matrix.html", {"viewport": {"width": 1280, "height": 640}}),
        ("site-compositions", "compositions.html", {"viewport": {"width": 1280, "height": 620}}),
        (
            "site-phone",
            "adapters/support-invoices.html",
            {"viewport": PHONE, "color_scheme": "dark"},
        ),
    ],
)
def test_pictures_for_the_docs_are_small(
    small: Path, visit: Any, name: str, page: str, options: dict[str, Any]
) -> None:
    shown = visit(small, page, **options)
    from PIL import Image  # as matplotlib has it

    PICTURES.mkdir(exist_ok=True)
    taken = Image.open(BytesIO(shown.screenshot(animations="disabled"))).convert("RGB")
    small_one = BytesIO()
    taken.quantize(96, dither=Image.Dither.NONE).save(small_one, "PNG", optimize=True)
    raw = small_one.getvalue()
    assert len(raw) < LARGEST_PICTURE
    place = PICTURES / f"{name}.png"
    if not place.is_file() or place.read_bytes() != raw:
        place.write_bytes(raw)
