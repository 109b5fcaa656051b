"""Draw the page's picture, `figures/page.png`: `python -m regionlab.service.screenshot`.

A headless Chromium uses the page as a visitor would, on the service of Toybox's index.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regionlab.index.index import Index
from regionlab.runs.record import PRIVATE, new_record, redact_paths
from regionlab.service.process import find_box, prepare_index, run_service
from regionlab.util.files import write_json
from regionlab.util.paths import FIGURES

if TYPE_CHECKING:
    from playwright.sync_api import Page


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 1280, "height": 820}  # CSS pixels
CAPTION = (
    "The page of `make serve` on Toybox: a box on an image of the collection, the mask that SAM "
    "finds in it, and the images whose regions are most like it, each with its score."
)


def take_screenshot(file: Path, index: Index, *, number: int = 0) -> None:
    """Save a picture of the page: a box drawn, its mask, and what was found.

    Parameters
    ----------
    file
        A PNG.
    index
        Is served; with regions.
    number
        The image asked with: its place in the collection's list.

    Raises
    ------
    RuntimeError
        If there is no Chromium to show the page in.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise RuntimeError(f"no browser: install one of {', '.join(BROWSERS)}")
    with run_service(index.folder, batch=32) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{served.port}")
        page.get_by_role("button", name="From the collection").click()
        page.locator("#listed button").nth(number).click()
        _draw_box(page, find_box(index, number), index.images.iloc[number])
        page.get_by_role("button", name="Search", exact=True).click()
        page.locator("#results img").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.evaluate("scrollTo(0, 0)")
        file.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=file)
        browser.close()


def _draw_box(page: "Page", box: Sequence[float], image) -> None:
    """Drag the mouse over a box, XYXY in pixels of the image, and wait for its mask."""
    stage = page.locator(".regionlab-picker .stage > img")
    stage.wait_for()
    shown = stage.bounding_box()
    scale = shown["width"] / image["width"]
    corners = [(shown["x"] + x * scale, shown["y"] + y * scale) for x, y in (box[:2], box[2:])]
    with page.expect_response("**/mask"):
        page.mouse.move(*corners[0])
        page.mouse.down()
        page.mouse.move(*corners[1], steps=3)
        page.mouse.up()
    page.locator(".regionlab-picker .layer img").wait_for()


def main() -> int:
    """Draw the picture with its record beside it; return 0, or 2 if it cannot be."""
    record = new_record("page", run="page", profile="page", parameters={"number": 10})
    file = FIGURES / "page.png"
    try:
        take_screenshot(file, prepare_index(1000), **record["parameters"])
    except (ImportError, RuntimeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    record = {key: value for key, value in redact_paths(record).items() if key not in PRIVATE}
    figure = {"file": file.name, "caption": CAPTION, "alt": CAPTION, "order": 0}
    write_json(file.with_suffix(".json"), {"record": record | {"status": "ok"}, "figure": figure})
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
