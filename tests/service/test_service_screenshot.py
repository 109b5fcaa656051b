"""The picture of the page that the README shows, drawn of a small world."""

import shutil

import pytest
from PIL import Image

from regionlab.service.process import BROWSERS, SIZE, take_screenshot
from service_world import build_world

pytest.importorskip("playwright", reason="no playwright to steer a browser")
if not any(map(shutil.which, BROWSERS)):
    pytest.skip("no Chromium here to show the page in", allow_module_level=True)


def test_the_page_s_picture_shows_the_box_and_what_was_found(tmp_path):
    take_screenshot(tmp_path / "page.png", build_world(tmp_path / "world").index, number=3)
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == tuple(SIZE.values())
        pixels = picture.convert("RGB")
    drawn = {color for _, color in pixels.crop((0, 120, 560, 720)).getcolors(10**6)}
    found = {color for _, color in pixels.crop((590, 80, 1280, 820)).getcolors(10**6)}
    assert len(drawn) > 1000 and len(found) > 1000  # photographs on both sides
