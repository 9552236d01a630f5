"""Takes the pictures of docs/console.md: `make pictures`. A test takes them again and compares.

Beside each picture lies its outline: what a screen reader is told of the page, as text. Outlines are compared on every
machine; pixels only where Chromium and the fonts are those that the pictures were made with, since nothing else would
be the same there. What differs each time (ids, sizes, seconds) is masked in outlines and few pixels in pictures.
"""

import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from console import CHROMIUM, FLAGS, serve
from console_store import ConsoleStore, console_store
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from places import EXAMPLES, ROOT
from rq import Worker as RqWorker

from k2d.settings import Settings
from services.filter.app import create_app
from services.filter.queue import QUEUES, WorkQueue, request_plan
from services.local.redis_server import EmbeddedRedis

FOLDER: Final = ROOT / "docs" / "pictures" / "console"
WIDTH: Final = 1280
MOST_HEIGHT: Final = 1150  # of a picture; what is below is cut off
COLOURS: Final = 96
WAIT_MS: Final = 60_000
MADE_WITH: Final = "made with"  # name of the PNG's text that says which Chromium and fonts
CHANGED: Final = 48  # of 255, in any channel, from which on a pixel differs
MASKS: Final = (
    (r"\b(?:[bd]_)?[0-9a-f]{12,}\b", "ID"),
    (r': "ID"(?=\n|$)', ": ID"),  # an id that reads as a number (12e456789012) is in quotes
    (r"\b\d+(?:\.\d+)? [kM]?B\b", "SIZE"),
    (r"k2d \d+\.\d+\.\w+", "k2d VERSION"),
    (r"seed=\d+", "seed=N"),
)


@dataclass(frozen=True)
class Shot:
    """A page and what is done on it before its picture is taken."""

    name: str
    path: str
    ready: str  # a selector of what is there once the page is complete
    act: Callable[[Any], None] = lambda page: None
    masks: tuple[tuple[str, str], ...] = ()  # of its outline, beside MASKS


@dataclass(frozen=True)
class Picture:
    """A page as it was shown."""

    png: bytes
    outline: str


def shots(store: ConsoleStore) -> list[Shot]:
    """All pages, by the names of their pictures."""
    explore = "batches/lectures-2026-11/explore"
    return [
        Shot("sign-in", "sign-in", "#key"),
        Shot("audit-log", "audit-log", "table"),  # before an estimate, which is in the log
        Shot("batches", "", "td.number >> text=/min|分鐘/"),
        Shot("batch-new", "batches/new", "h1", _choose_files),
        Shot("batch", "batches/lectures-2026-11", "#quarantine"),
        Shot("batch-add", "batches/new?add=lectures-2026-11", "h1"),
        Shot("batch-delete", "batches/interviews/delete", "#delete"),
        Shot("explore", explore, "#panel .chunks", _drawn),
        Shot("chunks", "batches/lectures-2026-11/chunks", ".chunks"),
        Shot("chunk", f"chunks/{store.chunk}?batch=lectures-2026-11", "#wave canvas, #wave *", _waved),
        Shot("reviews", "review", "#draws"),
        Shot("review", f"review/{store.begun}", "#candidates", _heard),
        Shot("calibration", f"review/{store.calibrated}/calibrations/{store.calibration}", "h1"),
        Shot("datasets", "datasets", "table"),
        Shot("dataset", "datasets/lectures-v1?seed=1", ".clips li"),
        Shot("runs", "runs", "table"),
        Shot("run", "runs/first", "#curves canvas"),
        Shot("fleet", "fleet", "#health", masks=((r"\b\d+ s\b", "SECONDS"),)),
        Shot("keys", "keys", "table", masks=((r"20\d\d-\d\d-\d\d \d\d:\d\d", "TIME"),)),
    ]


def _choose_files(page: Any) -> None:
    page.set_input_files("#files", sorted(EXAMPLES.glob("cs-*")))
    page.fill("#name", "questions")
    page.click("#estimate")
    page.locator("#forecast p").first.wait_for()


def _drawn(page: Any) -> None:
    page.locator("#curve canvas").first.wait_for()
    page.wait_for_function("() => !document.querySelector('#curve[aria-busy]')")


def _waved(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('#wave *')?.shadowRoot?.querySelector('canvas')")


def _heard(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('#player audio')?.currentTime > 0")
    page.evaluate("() => { const clip = document.querySelector('#player audio'); clip.pause(); clip.currentTime = 0; }")


# ---- the server ------------------------------------------------------------------------------------------------------


@contextmanager
def console(root: Path, redis_url: str) -> Iterator[tuple[ConsoleStore, str]]:
    """The store in this folder and its console, with a worker that waits and a batch in the queue."""
    store = console_store(root / "lake")
    settings = Settings(store=str(root / "lake"), redis_url=redis_url, _env_file=None)
    app = create_app(settings)
    queue: WorkQueue = app.state.queue
    queue.redis.flushall()
    request_plan(queue, store.lake.batches.get("podcasts").id)
    worker = RqWorker(list(QUEUES), connection=queue.redis, name="4f1c0d9e7a52")
    worker.hostname = "worker-1"
    worker.register_birth()
    worker.set_state("idle")
    with serve(app) as url:
        yield store, url


@contextmanager
def pages(browser: Any, url: str, key: str, **context: Any) -> Iterator[Any]:
    """A page of somebody who is signed in with a key, 1280 pixels wide, light and in English."""
    options = {"viewport": {"width": WIDTH, "height": 800}, "locale": "en-US", "color_scheme": "light"} | context
    opened = browser.new_context(base_url=f"{url}/", reduced_motion="reduce", **options)
    opened.set_default_timeout(WAIT_MS)
    page = opened.new_page()
    page.goto("sign-in")
    page.fill("#key", key)
    page.click("main button[type=submit]")
    page.wait_for_url(f"{url}/")
    yield page
    opened.close()


def show(page: Any, shot: Shot) -> None:
    """Go to a page and wait until it is complete."""
    page.goto(shot.path or "./")
    page.locator(shot.ready).first.wait_for(state="attached")
    shot.act(page)
    page.wait_for_load_state("networkidle")
    page.evaluate("() => document.fonts.ready")


def take(page: Any, shot: Shot) -> Picture:
    """Show a page and take its picture."""
    show(page, shot)
    height = min(MOST_HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    raw = page.screenshot(full_page=True, clip=clip, animations="disabled", caret="hide")
    return Picture(_small(raw, made_with(page)), masked(page.locator("body").aria_snapshot(), shot.masks))


def made_with(page: Any) -> str:
    """The Chromium and the fonts of this machine: two that say the same draw the same pixels."""
    widths = page.evaluate(
        """(texts) => {
            const context = document.createElement("canvas").getContext("2d");
            context.font = `160px ${getComputedStyle(document.body).fontFamily}`;
            return texts.map((text) => context.measureText(text).width.toFixed(2)).join(" ");
        }""",
        ["Why was this kept?", "今天我們來 review 一下", "ακ≤×✓–"],
    )
    return f"Chromium {page.context.browser.version}, {widths}"


def _small(png: bytes, made: str) -> bytes:
    """The picture with few colours, and what it was made with."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    info = PngInfo()
    info.add_text(MADE_WITH, made)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True, pnginfo=info)
    return out.getvalue()


def masked(outline: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """An outline without what differs each time."""
    for pattern, name in (*MASKS, *more):
        outline = re.sub(pattern, name, outline)
    return outline + "\n"


# ---- comparing -------------------------------------------------------------------------------------------------------


def maker_of(png: bytes) -> str:
    """What a picture was made with."""
    image: Any = Image.open(io.BytesIO(png))
    image.load()
    return str(image.text.get(MADE_WITH, ""))


def changed_share(png: bytes, other: bytes) -> float:
    """The share of pixels that differ; 1.0 for pictures of different sizes."""
    one, two = (np.asarray(Image.open(io.BytesIO(own)).convert("RGB"), np.int16) for own in (png, other))
    if one.shape != two.shape:
        return 1.0
    return float((np.abs(one - two).max(axis=2) > CHANGED).mean())


def main(folder: Path) -> None:
    """Write all pictures and outlines into a folder, and remove those of pages that are no more."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as root,
        EmbeddedRedis(Path(root) / "redis") as redis,
        console(Path(root), redis.url) as (store, url),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        with pages(browser, url, store.key) as page:
            wanted = {}
            for shot in shots(store):
                picture = take(page, shot)
                wanted |= {f"{shot.name}.png": picture.png, f"{shot.name}.txt": picture.outline.encode()}
                print(f"{shot.name}: {len(picture.png) / 1000:.0f} kB", file=sys.stderr)
        browser.close()
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        (folder / name).write_bytes(data)
    total = sum(len(data) for name, data in wanted.items() if name.endswith(".png"))
    print(f"{total / 1000:.0f} kB in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
