"""The widgets in a real browser, in JupyterLab and in Voila: from the mouse to the kernel.

One server, one browser and one kernel an application. The kernel writes what it knows to a
file after each change, so that the tests read the very numbers that arrive there.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import nbformat
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here to show the widgets in", allow_module_level=True)

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to steer a browser")

WIDTH, HEIGHT = 200, 120
PATIENCE = 120  # seconds, for a slow machine
PIXEL_RATIO = {"lab": 1, "voila": 2}
EMPTY = {"box": None, "points": [], "labels": [], "text": ""}

NOTEBOOK = f"""
import json, os
import numpy as np
from regionlab.models.registry import load_segmenter
from regionlab.widgets import RegionPicker, ResultGrid

y, x = np.mgrid[:{HEIGHT}, :{WIDTH}]
image = np.stack([x, 2 * y, 255 * ((x // 20 + y // 20) % 2)], -1).astype(np.uint8)
picker = RegionPicker(image, segmenter=load_segmenter("toysam/untrained", precision="fp32"))
grid = ResultGrid([image, image], ["0.9 <b>bold</b>", "0.5"])

def report(_=None):
    names = ("objects", "active", "error")
    state = {{name: getattr(picker, name) for name in names}} | {{"chosen": grid.chosen}}
    state["regions"] = len(picker.regions)
    with open("NAME.part", "w") as file:
        json.dump(state, file)
    os.replace("NAME.part", "NAME.json")

picker.observe(report, ["objects", "active", "masks", "error"])
grid.observe(report, "chosen")
report()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab, with Voila as its extension, on a folder with a notebook for each."""
    root, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    for name in PIXEL_RATIO:
        write_notebook(root / f"{name}.ipynb", NOTEBOOK.replace("NAME", name))
    write_settings(home / "CONFIG", "notification", {"fetchNews": "false"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        "--expose-app-in-browser",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with open(home / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=os.environ | places, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url) or process.poll() is not None)
        assert process.poll() is None, (home / "log").read_text()
        yield SimpleNamespace(url=url, root=root)
    finally:
        process.terminate()  # its kernels go with it
        process.wait(PATIENCE)


def write_notebook(path, source):
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "picker", "grid")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def write_settings(config, plugin, settings):
    """Write a user's settings of JupyterLab, so that no question pops up over the page."""
    folder = config / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    (folder / f"{plugin}.jupyterlab-settings").write_text(json.dumps(settings))


def answers(url):
    try:
        return urllib.request.urlopen(f"{url}/api/status", timeout=5).status == 200
    except OSError:
        return False


def wait_until(condition, pause=lambda: time.sleep(0.1)):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s")
        pause()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=list(PIXEL_RATIO))
def shown(request, server, browser):
    """The notebook's widgets on the screen, in one of the applications."""
    context = browser.new_context(
        viewport={"width": 1100, "height": 900},
        device_scale_factor=PIXEL_RATIO[request.param],
        has_touch=True,
    )
    context.set_default_timeout(1000 * PATIENCE)
    # Whatever a page wants from elsewhere, the tests do without.
    context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    page = context.new_page()
    if request.param == "lab":
        page.goto(f"{server.url}/lab/tree/lab.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    else:
        page.goto(f"{server.url}/voila/render/voila.ipynb")
    page.locator(".regionlab-picker .stage > img").wait_for()
    page.locator(".regionlab-grid img").first.wait_for()
    yield Shown(page, server.root / f"{request.param}.json")
    context.close()


class Shown:
    """A page with the picker, and what its kernel knows."""

    def __init__(self, page, file):
        self.page, self.file = page, file
        self.picker = page.locator(".regionlab-picker")
        self.image = self.picker.locator(".stage > img")

    @property
    def state(self):
        return json.loads(self.file.read_text())

    def wait(self, condition):
        """Wait until the kernel's state is as told, and return it."""
        try:
            wait_until(lambda: condition(self.state), lambda: self.page.wait_for_timeout(20))
        except TimeoutError as e:
            raise AssertionError(f"the kernel stays at {self.state}") from e
        return self.state

    def wait_objects(self, condition):
        return self.wait(lambda state: condition(state["objects"]))["objects"]

    def clear(self):
        self.picker.focus()
        while self.state["objects"] != [EMPTY]:
            count = len(self.state["objects"])
            self.picker.press("Delete")
            self.wait_objects(lambda objects, n=count: len(objects) < n or objects == [EMPTY])

    def client(self, x, y):
        """Return where a place of the image is on the page, in CSS pixels."""
        box = self.image.bounding_box()
        return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT

    def click(self, x, y, *, key=None, button="left"):
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.click(*self.client(x, y), button=button)
        if key:
            self.page.keyboard.up(key)

    def drag(self, start, end, *, release=True):
        self.page.mouse.move(*self.client(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.client(*end), steps=3)
        if release:
            self.page.mouse.up()

    def draw_box(self, start, end):
        self.drag(start, end)
        return self.wait_objects(lambda objects: objects[-1]["box"])[-1]["box"]


@pytest.fixture
def picker(shown):
    shown.picker.scroll_into_view_if_needed()
    shown.clear()
    return shown


def near(values):
    """Equal to a twentieth of a pixel; the picker rounds to a hundredth, browsers a little too."""
    return pytest.approx(values, abs=0.05)


# Boxes


def test_a_drag_becomes_a_box_in_pixels_of_the_image(picker):
    assert picker.draw_box((20, 10), (150, 100)) == near([20, 10, 150, 100])


def test_a_box_drawn_from_its_last_corner_has_its_corners_in_order(picker):
    assert picker.draw_box((150, 100), (20, 10)) == near([20, 10, 150, 100])


def test_a_box_ends_at_the_edge_of_the_image(picker):
    assert picker.draw_box((150, 60), (WIDTH + 20, HEIGHT + 10))[2:] == [WIDTH, HEIGHT]


def test_another_box_replaces_the_first(picker):
    picker.draw_box((20, 10), (150, 100))
    picker.drag((50, 20), (80, 60))
    (only,) = picker.wait_objects(lambda objects: objects[0]["box"][0] > 40)
    assert only["box"] == near([50, 20, 80, 60])


def test_escape_gives_up_a_drag(picker):
    picker.drag((20, 10), (90, 60), release=False)
    assert picker.picker.locator(".box").count() == 1
    picker.picker.press("Escape")
    assert picker.picker.locator(".box").count() == 0
    picker.page.mouse.up()
    picker.click(30, 40)
    (only,) = picker.wait_objects(lambda objects: objects[0]["points"])
    assert only["box"] is None


@pytest.mark.parametrize("width", [311, 640])
def test_coordinates_are_exact_at_any_scale(picker, width):
    stage = picker.picker.locator(".stage")
    stage.evaluate("(stage, width) => (stage.style.width = `${width}px`)", width)
    try:
        assert picker.image.bounding_box()["width"] == width
        assert picker.draw_box((20, 10), (150, 100)) == near([20, 10, 150, 100])
        picker.click(120, 70)
        (only,) = picker.wait_objects(lambda objects: objects[0]["points"])
        assert only["points"][0] == near([120, 70])
    finally:
        stage.evaluate("stage => (stage.style.width = '')")


# Points


def test_a_click_is_a_point_inside_at_the_pixel(picker):
    picker.click(33, 77)
    (only,) = picker.wait_objects(lambda objects: objects[0]["points"])
    assert only["points"][0] == near([33, 77])
    assert only["labels"] == [1]
    assert only["box"] is None


def test_right_click_and_modifiers_are_points_outside(picker):
    picker.click(33, 77)
    picker.click(150, 20, button="right")
    picker.click(160, 30, key="Shift")
    picker.click(170, 40, key="Control")
    (only,) = picker.wait_objects(lambda objects: len(objects[0]["points"]) == 4)
    assert only["labels"] == [1, 0, 0, 0]
    assert only["points"][1:] == [near([150, 20]), near([160, 30]), near([170, 40])]
    assert picker.page.locator(".lm-Menu").count() == 0  # JupyterLab's context menu


def test_the_minus_button_makes_clicks_points_outside(picker):
    picker.picker.get_by_role("button", name="outside").click()
    picker.click(33, 77)
    (only,) = picker.wait_objects(lambda objects: objects[0]["points"])
    picker.picker.get_by_role("button", name="inside").click()
    assert only["labels"] == [0]


def test_a_tap_is_inside_and_a_long_press_outside(picker):
    picker.page.touchscreen.tap(*picker.client(60, 50))
    picker.wait_objects(lambda objects: objects[0]["labels"] == [1])
    finger = picker.page.context.new_cdp_session(picker.page)
    x, y = picker.client(100, 80)
    point = {"touchPoints": [{"x": x, "y": y}]}
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", **point})
    (only,) = picker.wait_objects(lambda objects: len(objects[0]["points"]) == 2)
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert only["labels"] == [1, 0]
    assert only["points"] == [near([60, 50]), near([100, 80])]


# Several objects, words, keys


def test_objects_are_added_chosen_and_removed(picker):
    picker.click(20, 20)
    picker.wait_objects(lambda objects: objects[0]["points"])
    picker.picker.press("n")
    picker.wait(lambda state: state["active"] == 1)
    picker.draw_box((60, 30), (120, 90))
    picker.picker.press("1")
    picker.wait(lambda state: state["active"] == 0)
    picker.click(25, 30)
    first, second = picker.wait_objects(lambda objects: len(objects[0]["points"]) == 2)
    assert (second["points"], second["box"]) == ([], near([60, 30, 120, 90]))
    picker.picker.press("Delete")
    assert picker.wait_objects(lambda objects: len(objects) == 1) == [second]


def test_each_object_has_its_own_colour(picker):
    picker.draw_box((20, 20), (60, 60))
    picker.picker.get_by_role("button", name="new object").click()
    picker.draw_box((90, 30), (120, 90))
    read = "boxes => boxes.map(box => getComputedStyle(box).borderTopColor)"
    colors = picker.picker.locator(".box").evaluate_all(read)
    assert colors == ["rgb(230, 159, 0)", "rgb(86, 180, 233)"]


def test_undo_goes_back_a_step_by_key_and_by_button(picker):
    picker.draw_box((20, 20), (60, 60))
    picker.click(30, 30)
    picker.wait_objects(lambda objects: objects[0]["points"])
    picker.picker.press("Control+z")
    (only,) = picker.wait_objects(lambda objects: not objects[0]["points"])
    assert only["box"] == near([20, 20, 60, 60])
    picker.picker.get_by_role("button", name="undo").click()
    picker.wait_objects(lambda objects: objects == [EMPTY])


def test_words_reach_the_active_object(picker):
    words = picker.picker.get_by_role("textbox")
    words.fill("a <b>red</b> circle")
    words.press("Enter")
    picker.wait_objects(lambda objects: objects[0]["text"] == "a <b>red</b> circle")
    picker.picker.press("n")  # the focus is back on the picker
    picker.wait(lambda state: state["active"] == 1)
    assert words.input_value() == ""


def test_letters_typed_as_words_are_no_keys_of_the_picker(picker):
    words = picker.picker.get_by_role("textbox")
    words.press_sequentially("n1?")
    assert words.input_value() == "n1?"
    words.press("Backspace")
    words.press("Enter")
    (only,) = picker.wait_objects(lambda objects: objects[0]["text"])
    assert only["text"] == "n1"


def test_a_question_mark_shows_the_help(picker):
    text = picker.picker.get_by_text("box around the object")
    assert not text.is_visible()
    picker.picker.press("?")
    assert text.is_visible()
    picker.picker.press("Escape")
    assert not text.is_visible()


@pytest.mark.parametrize("shown", ["lab"], indirect=True)  # Voila has no cells
def test_keys_do_not_reach_jupyterlab(picker):
    count = "window.jupyterapp.shell.currentWidget.content.widgets.length"
    cells = picker.page.evaluate(count)
    picker.click(20, 20)
    for key in ("a", "b", "x", "d", "d", "Enter", "Shift+M"):
        picker.page.keyboard.press(key)
    picker.picker.press("n")  # the kernel has had all keys once this one is answered
    picker.wait(lambda state: len(state["objects"]) == 2)
    assert picker.page.evaluate(count) == cells
    assert picker.page.evaluate("window.jupyterapp.shell.currentWidget.content.mode") == "command"


# Masks and errors


def test_a_prompt_is_answered_by_a_mask_over_the_picture(picker):
    picker.draw_box((20, 20), (120, 100))
    picker.wait(lambda state: state["regions"] == 1)
    mask = picker.picker.locator(".stage .layer img")
    mask.wait_for()
    assert mask.evaluate("mask => [mask.naturalWidth, mask.naturalHeight]") == [WIDTH, HEIGHT]
    assert mask.bounding_box() == picker.image.bounding_box()


def test_a_failing_prompt_is_told_and_the_marks_stay(picker):
    picker.click(20, 20, button="right")
    message = picker.picker.get_by_text("object 1: only negative points")
    message.wait_for()
    assert picker.picker.locator(".point").count() == 1
    picker.click(30, 30)
    message.wait_for(state="detached")
    assert picker.picker.locator(".point").count() == 2


# Results


def test_a_click_on_a_result_chooses_it_and_its_title_is_plain_text(shown):
    results = shown.page.locator(".regionlab-grid .pick")
    assert results.all_inner_texts() == ["0.9 <b>bold</b>", "0.5"]
    results.nth(1).click()
    shown.wait(lambda state: state["chosen"] == 1)
    assert results.nth(1).get_attribute("aria-pressed") == "true"
