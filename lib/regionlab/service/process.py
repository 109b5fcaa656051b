"""The service as a process of its own: to measure it, and to draw `figures/page.png`.

`python -m regionlab.service.process` has a headless Chromium use the page as a visitor would.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import psutil

from regionlab.index.index import Index
from regionlab.runs.record import PRIVATE, new_record, redact_paths
from regionlab.util import paths
from regionlab.util.files import write_json

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 1280, "height": 820}  # CSS pixels
CAPTION = (
    "The page of `make serve` on Toybox: a box on an image of the collection, the mask that SAM "
    "finds in it, and the images whose regions are most like it, each with its score."
)
START_SECONDS = 300  # until the service must answer


@dataclass(frozen=True)
class Served:
    """The service, running."""

    process: subprocess.Popen
    port: int

    def memory(self) -> float:
        """Return the memory that it holds, in MB."""
        return round(psutil.Process(self.process.pid).memory_info().rss / 1e6, 1)

    def ask_health(self) -> dict[str, Any]:
        """Return what GET /health says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def run_service(folder: Path, *, batch: int) -> Iterator[Served]:
    """Run the service of an index in a process of its own, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "regionlab.cli", "serve", "--index", str(folder)]
    command += ["--port", str(port), "--batch", str(batch)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        served = Served(process, port)
        try:
            _wait_until_ready(served, log)
            yield served
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_ready(served: Served, log: BinaryIO) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and served.process.poll() is None:
        try:
            return served.ask_health()
        except OSError:
            time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"the service does not start: {log.read()[-2000:].decode()}")


def prepare_index(images: int) -> Index:
    """Return the index of so many Toybox images with regions, built where it is not there."""
    from regionlab.index.build import add_regions, build_index
    from regionlab.models.registry import load_encoder, load_segmenter
    from toybox import load_toybox
    from toybox.disk import SIZES

    encoder, segmenter = load_encoder(), load_segmenter()
    collection = load_toybox(count=images)
    count = None if images == SIZES["test"] else str(images)
    folder = paths.index_folder("toybox", "test", count, encoder.name, "regions")
    return add_regions(build_index(collection, encoder, folder), segmenter, encoder)


def find_box(index: Index, row: int) -> list[float]:
    """Return the box of an image's largest region that is not its ground, XYXY in pixels."""
    image, regions = index.images.iloc[row], index.regions.iloc[index.regions_of(row)]
    things = regions[regions["area"] < image["width"] * image["height"] / 2]
    if not len(things):
        return [0.0, 0.0, float(image["width"]), float(image["height"])]
    return things.loc[things["area"].idxmax(), ["x0", "y0", "x1", "y1"]].astype(float).tolist()


def take_screenshot(file: Path, index: Index, *, number: int = 0) -> None:
    """Save an image of the page as PNG: a box drawn, its mask, and what was found.

    `index` has regions; `number` is the place of the image asked with in the collection's list.
    RuntimeError without a Chromium.
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
    """Draw the image with its record beside it; return 0, or 2 if it cannot be."""
    record = new_record("page", run="page", profile="page", parameters={"number": 10})
    file = paths.FIGURES / "page.png"
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
