"""Every page on a phone: nothing scrolls sideways but tables in their own box, and a thumb hits what is pressed."""

from collections.abc import Iterator
from typing import Any

import pytest
from console_pictures import ConsoleStore, Shot, console, pages, shots, show
from factories import finished_batch

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WIDTHS = (390, 360)
THUMB = 40  # px
LONG = "a" * 100
# of what is pressed, tokens and links in a text are not a page's actions
TOO_LOW = f"""() => [...document.querySelectorAll("main button, main .button, main select, header nav a")]
    .filter((own) => !own.matches(".token, .link") && own.checkVisibility())
    .filter((own) => own.getBoundingClientRect().height < {THUMB}).map((own) => own.outerHTML.slice(0, 200))"""
# what stands out of the page, for whoever mends it
OUT = """() => [...document.querySelectorAll("body *")].filter((own) => !own.closest(".scroll, .skip"))
    .filter((own) => own.getBoundingClientRect().right > innerWidth + 0.5).map((own) => own.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[tuple[ConsoleStore, str]]:
    with console(tmp_path_factory.mktemp("phones"), redis_url) as (store, url):
        finished_batch(store.lake, name=LONG, recordings=1, names=[f"{'b' * 180}.wav"])
        yield store, url


@pytest.mark.parametrize("language", ["en-US", "zh-TW"])
def test_no_page_scrolls_sideways_and_a_thumb_hits_its_actions(browser: Any, site: Any, language: str) -> None:
    store, url = site
    long = [Shot(f"long {part}", f"batches/{LONG}{part}", "h1") for part in ("", "/chunks", "/delete", "/explore")]
    with pages(browser, url, store.key, viewport={"width": WIDTHS[0], "height": 800}, locale=language) as page:
        for shot in (*shots(store), *long):
            show(page, shot)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 800})
                wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
                assert wide <= 0, (shot.name, width, page.evaluate(OUT))
            assert page.evaluate(TOO_LOW) == [], shot.name
            page.set_viewport_size({"width": WIDTHS[0], "height": 800})


def test_a_rules_count_stands_in_its_row(browser: Any, site: Any) -> None:
    store, url = site
    explore = next(shot for shot in shots(store) if shot.name == "explore")
    with pages(browser, url, store.key, viewport={"width": WIDTHS[-1], "height": 800}) as page:
        show(page, explore)
        far = page.evaluate(
            """() => [...document.querySelectorAll(".rule small")].filter((own) => own.textContent).map((own) => {
                const count = own.getBoundingClientRect(), rule = own.previousElementSibling.getBoundingClientRect();
                if (count.left < rule.right) return 99;
                return Math.abs(count.top + count.bottom - rule.top - rule.bottom) / 2;
            })"""
        )
        assert len(far) > 5
        assert max(far) < 3  # px between the middles of a rule and its count


def test_values_of_a_record_stand_behind_their_columns_names(browser: Any, site: Any) -> None:
    store, url = site
    with pages(browser, url, store.key, viewport={"width": WIDTHS[0], "height": 800}) as page:
        page.locator("td.number >> text=min").first.wait_for()  # the list as htmx brought it anew
        row = page.locator("tr", has_text="lectures-2026-11")
        columns = row.locator("td").evaluate_all(
            "(cells) => cells.map((own) => getComputedStyle(own, '::before').content)"
        )
        assert columns == [
            f'"{own}"' for own in ("State", "Recordings", "Audio", "Teacher", "Validators", "Posted (UTC)")
        ]
        assert page.get_by_role("row").count() == 1 + page.locator("tbody tr").count()
        tops = row.locator("td").evaluate_all("(cells) => cells.map((own) => own.getBoundingClientRect().top)")
        assert tops == sorted(set(tops))
