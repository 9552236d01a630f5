"""The pictures of docs/console.md show the pages as they are: taken again and compared (`make pictures` makes them).

An outline (what a screen reader is told) must be the same on every machine. Pixels are compared only where Chromium and
fonts are those of the pictures: elsewhere every letter lies somewhere else, and nothing is to be learned from that.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_pictures import FOLDER, WIDTH, changed_share, console, made_with, maker_of, masked, pages, shots, take
from PIL import Image
from places import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MOST_BYTES = 120_000  # of a picture
ALL_BYTES = 900_000
MOST_CHANGED = 0.01  # of the pixels; ids and seconds, which differ each time, are less than half of it
AGAIN = "`make pictures`, look at them, and commit them with the change"


@pytest.fixture(scope="module")
def taken(browser: Any, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Any]:
    """The pages' pictures by name, and the page with which they were taken."""
    with (
        console(tmp_path_factory.mktemp("pictures"), redis_url) as (store, url),
        pages(browser, url, store.key) as page,
    ):
        yield {shot.name: take(page, shot) for shot in shots(store)}, page


def test_every_page_is_as_its_picture_says(taken: Any) -> None:
    pictures = taken[0]
    assert sorted(pictures) == sorted(path.stem for path in FOLDER.glob("*.png"))
    for name, picture in pictures.items():
        assert picture.outline == (FOLDER / f"{name}.txt").read_text("utf-8"), f"{name} has changed: {AGAIN}"


def test_every_page_looks_as_in_its_picture(taken: Any) -> None:
    pictures, page = taken
    own = made_with(page)
    if any(maker_of(path.read_bytes()) != own for path in FOLDER.glob("*.png")):
        pytest.skip("another Chromium or other fonts than those of the pictures: outlines are compared alone")
    changed = {name: changed_share(own.png, (FOLDER / f"{name}.png").read_bytes()) for name, own in pictures.items()}
    assert not {name: share for name, share in changed.items() if share > MOST_CHANGED}, AGAIN


def test_pictures_are_small_and_all_in_the_docs() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.png")}
    assert not {name: size for name, size in sizes.items() if size > MOST_BYTES}
    assert sum(sizes.values()) <= ALL_BYTES
    text = (ROOT / "docs" / "console.md").read_text("utf-8")
    assert sorted(re.findall(r"!\[[^\]]+\]\(pictures/console/([\w-]+\.png)\)", text)) == sorted(sizes)
    assert {Image.open(FOLDER / name).width for name in sizes} == {WIDTH}


def test_a_changed_colour_and_a_moved_box_are_seen(tmp_path: Path) -> None:
    picture = (FOLDER / "batches.png").read_bytes()
    assert changed_share(picture, picture) == 0.0
    image = Image.open(FOLDER / "batches.png").convert("RGB")
    for number, box in enumerate(((0, 0, 400, 50), (0, 0, WIDTH, image.height - 40))):
        other = image.copy()
        other.paste(image.crop(box), (box[0], box[1] + 40)) if number else other.paste((15, 95, 92), box)
        other.save(tmp_path / "other.png")
        assert changed_share(picture, (tmp_path / "other.png").read_bytes()) > MOST_CHANGED


def test_what_differs_each_time_is_masked() -> None:
    assert masked("b_643523f5ffe370d9, 1.3 MB, k2d 0.2.0 of 2026-11-20, risk 0.183") == (
        "ID, SIZE, k2d VERSION of 2026-11-20, risk 0.183\n"
    )
    assert masked('- code: "123456789012"') == masked("- code: 12345678901f") == "- code: ID\n"
