"""Thumbs on results and the rating sheet: what the kernel does, and the page in a browser.

In the browser the widgets' own files run with a model that is a plain object, so that no server
is needed; `test_widgets_browser` has the way from the browser to a kernel.
"""

import base64
import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab import viz
from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.index.index import Index
from regionlab.models.registry import load_segmenter
from regionlab.search.feedback import FeedbackSession
from regionlab.search.query import Part, Query
from regionlab.studies.ratings import RatingError, RatingStore, RatingStudy
from regionlab.viz.grid import FeedbackGrid, LiveResults, ResultGrid
from regionlab.viz.picker import RegionPicker
from regionlab.viz.rating import RatingSheet

FOLDER = Path(viz.__file__).parent
PICTURE = np.full((20, 30, 3), 200, np.uint8)


def decode(data):
    return np.array(Image.open(BytesIO(data)))


@pytest.fixture
def session(tmp_path):
    """Six images, each with one region, ever further from the query."""
    names = [str(i) for i in range(6)]
    for name in names:
        write_image(tmp_path / f"{name}.png", PICTURE)
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:15] = True
    angles = np.linspace(0, 1.2, 6)
    vectors = np.float32(np.stack([np.cos(angles), np.sin(angles)], 1))
    images = {"image_id": names, "path": [f"{n}.png" for n in names], "height": 20, "width": 30}
    regions = {"region_id": names, "row": range(6), "x0": 5.0, "y0": 5.0, "x1": 15.0, "y1": 15.0}
    index = Index(
        tmp_path, {"collection": "six", "model": {"model": "none"}}, tmp_path,
        pd.DataFrame(images), vectors, pd.DataFrame(),
        pd.DataFrame(regions).assign(rle=mask_to_rle(mask)["counts"]), vectors,
    )  # fmt: skip
    return FeedbackSession(index, Query([Part(vectors[0])]), exclude=0)


def click(widget, **event):
    """What the browser does: an event that is another than the last one."""
    widget.event = {**event, "count": widget.event.get("count", 0) + 1}


# Thumbs


def test_a_grid_has_thumbs_only_where_likes_are_given():
    assert ResultGrid([PICTURE]).liked is None
    grid = ResultGrid([PICTURE, PICTURE], liked=[None, True])
    assert grid.liked == [None, True]
    with pytest.raises(ValueError, match="2 images need as many liked, not 1"):
        grid.show([PICTURE, PICTURE], liked=[True])
    grid.show([PICTURE])
    assert grid.liked is None


def test_a_thumb_is_a_judgement_and_moves_nothing(session):
    grid = FeedbackGrid(session, k=3)
    assert (grid.liked, grid.can_undo, grid.status) == ([None] * 3, False, "")
    shown = grid.thumbs
    click(grid, act="judge", number=2, liked=True)
    click(grid, act="judge", number=0, liked=False)
    assert grid.session.judgements == {"3": True, "1": False}
    assert (grid.liked, grid.can_undo) == ([False, None, True], True)
    assert grid.status == "1 liked, 1 disliked"
    assert grid.thumbs is shown or grid.thumbs == shown
    assert session.history == ()


def test_ranking_again_tells_where_results_were_before(session):
    grid = FeedbackGrid(session, k=3)
    assert [title.split(" ", 1)[1:] for title in grid.titles] == [[], [], []]
    click(grid, act="judge", number=2, liked=True)
    click(grid, act="judge", number=0, liked=False)
    click(grid, act="rank")
    expected = grid.session.compare_orders(3)
    assert grid.liked == expected["liked"].tolist()
    assert [title.partition(" ")[2] for title in grid.titles] == [
        f"(was {before})" if before != rank else ""
        for rank, before in zip(expected["rank"], expected["before"], strict=True)
    ]
    assert expected["before"].tolist() != [1, 2, 3]


def test_undo_takes_back_thumb_by_thumb(session):
    grid = FeedbackGrid(session, k=3)
    click(grid, act="judge", number=2, liked=True)
    click(grid, act="judge", number=2, liked=None)
    assert grid.liked == [None] * 3
    click(grid, act="undo")
    assert grid.liked == [None, None, True]
    click(grid, act="undo")
    click(grid, act="undo")  # nothing is left to undo
    assert (grid.liked, grid.can_undo) == ([None] * 3, False)


def test_results_follow_what_is_drawn(session):
    picker = RegionPicker(PICTURE, segmenter=load_segmenter(device="cpu", precision="fp32"))
    asked = []
    results = LiveResults(picker, lambda regions: asked.append(len(regions)) or session, k=3)
    assert (results.grid, asked) == (None, [])
    assert "No region yet" in results.children[0].value
    box = {"box": [4, 4, 16, 16], "points": [], "labels": [], "text": ""}
    for count in (1, 2):
        picker.objects = [box] * count
        assert asked[-1] == count
        assert results.children == (results.grid,)
        assert len(results.grid.liked) == 3
    picker.objects = []
    assert results.grid is None


def test_a_search_that_fails_is_told_in_place_of_old_results(session):
    picker = RegionPicker(PICTURE, segmenter=load_segmenter(device="cpu", precision="fp32"))

    def ask(regions):
        raise ValueError("no <such> thing")

    results = LiveResults(picker, ask)
    picker.objects = [{"box": [4, 4, 16, 16], "points": [], "labels": [], "text": ""}]
    assert results.grid is None
    assert results.children[0].value == "error: no &lt;such&gt; thing"
    with pytest.raises(ValueError, match="no <such> thing"):  # no stale picture in a headless run
        LiveResults(picker, ask)


def test_a_grid_may_go_on_to_new_images_only(session):
    grid = FeedbackGrid(session, k=2, new_only=True)
    click(grid, act="judge", number=0, liked=True)
    click(grid, act="rank")
    assert grid.liked == [None, None]
    assert [title.partition(" ")[2] for title in grid.titles] == ["(was 2)", "(was 3)"]


# The rating sheet


@pytest.fixture
def book(tmp_path):
    return RatingStore(
        tmp_path / "r.sqlite", RatingStudy("trial", ("p", "q"), ("secret A", "B"), 2)
    )


def show_query(query):
    return PICTURE, np.array([5.0, 5, 20, 15])


def show_answers(query, method):
    shade = 10 * len(method) + ord(query) % 10
    return [np.full((20, 30, 3), shade, np.uint8)] * 3


def test_a_sheet_asks_for_the_rater_first(book):
    sheet = RatingSheet(book, show_query, show_answers)
    assert (sheet.position, sheet.total, sheet.task) == (0, 4, None)
    with pytest.raises(RatingError, match="nothing to rate"):
        sheet.rate(3)
    click(sheet, act="start", rater="  ")
    assert "a rater needs a name" in sheet.error
    click(sheet, act="start", rater=" anna ")
    assert (sheet.rater, sheet.position, sheet.error) == ("anna", 1, "")


def test_answers_are_saved_before_the_next_page_and_a_rater_goes_on_later(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna")
    click(sheet, act="rate", position=1, rating=5)
    assert book.read()["rating"].tolist() == [5.0]
    click(sheet, act="skip", position=2)
    again = RatingSheet(book, show_query, show_answers, rater="anna")
    assert again.position == 3
    again.rate(2)
    again.rate(1)
    assert (again.position, again.task, again.answers) == (5, None, [])
    assert book.get_answers("anna") == {1: 5, 2: None, 3: 2, 4: 1}


def test_the_pictures_are_those_of_the_task(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna", thumb=16)
    query, method = sheet.task.query, sheet.task.method
    assert decode(sheet.answers[0]).mean() == pytest.approx(
        show_answers(query, method)[0].mean(), abs=2
    )
    assert len(sheet.answers) == 3
    outlined = decode(sheet.query)
    assert outlined[2, 12].max() < 120  # the dark line outside of the box
    assert np.abs(outlined[5:15, 5:20].astype(int) - 200).max() < 40
    assert np.abs(outlined[17, 27].astype(int) - 200).max() < 15


def test_going_back_shows_the_answer_given_and_then_goes_on(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna")
    sheet.rate(5)
    sheet.rate(4)
    click(sheet, act="back", position=3)
    click(sheet, act="back", position=2)
    assert (sheet.position, sheet.given) == (1, 5)
    click(sheet, act="back", position=1)
    assert sheet.position == 1
    sheet.rate(2)
    assert (sheet.position, sheet.given) == (3, 0)
    assert book.get_answers("anna") == {1: 2, 2: 4}


def test_a_key_pressed_twice_rates_one_page(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna")
    click(sheet, act="rate", position=1, rating=5)
    click(sheet, act="rate", position=1, rating=5)
    assert sheet.position == 2
    assert len(book.read()) == 1


def test_what_cannot_be_saved_is_told_and_asked_again(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna")
    click(sheet, act="rate", position=1, rating=9)
    assert "a rating must be 1, 2, 3, 4 or 5" in sheet.error
    book.file.unlink()
    book.file.mkdir()
    click(sheet, act="rate", position=1, rating=4)
    assert "cannot be used for ratings" in sheet.error
    assert sheet.position == 1


def test_nothing_that_is_sent_names_the_method(book):
    sheet = RatingSheet(book, show_query, show_answers, rater="anna")
    sent = {name: value for name, value in sheet.get_state().items() if name[0] != "_"}
    assert "secret" not in str(sent)


# In a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)

PAGE = """
<!doctype html><style>{css}</style><div id="here"></div>
<script type="module">
{js}
const jpeg = Uint8Array.from(atob("{jpeg}"), (c) => c.charCodeAt(0));
const state = {state};
if (state.query) state.query = jpeg;
for (const name of ["thumbs", "answers"]) state[name] = state[name]?.map(() => jpeg);
const handlers = {{}};
const each = (names, act) => names.split(" ").forEach(act);
window.model = {{
  get: (name) => state[name],
  set(name, value) {{
    state[name] = value;
    (handlers[`change:${{name}}`] ?? []).forEach((handler) => handler());
  }},
  on: (names, handler) => each(names, (name) => (handlers[name] ??= []).push(handler)),
  off: (names, gone) => each(names, (name) => {{
    handlers[name] = handlers[name].filter((handler) => handler !== gone);
  }}),
  save_changes() {{}},
}};
window.handlers = handlers;
window.leave = render({{ model: window.model, el: document.getElementById("here") }});
</script>
"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here to show the widgets in")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to steer it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a widget's page and returns it; errors on the page fail the test."""
    page, errors = browser.new_page(viewport={"width": 900, "height": 700}), []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def open_it(name, state):
        js = (FOLDER / f"{name}.js").read_text().replace("export default { render };", "")
        buffer = BytesIO()
        Image.fromarray(PICTURE).save(buffer, "JPEG")
        page.set_content(PAGE.format(
            css=(FOLDER / f"{name}.css").read_text(), js=js, state=json.dumps(state),
            jpeg=base64.b64encode(buffer.getvalue()).decode(),
        ))  # fmt: skip
        page.wait_for_selector("#here > div", state="attached")
        return page

    yield open_it
    page.close()
    assert errors == []


def event_of(page):
    event = page.evaluate("model.get('event')")
    event.pop("count", None)
    return event


GRID = {
    "thumbs": [1, 1, 1], "titles": ["a", "<b>", "c"], "frames": [None] * 3, "columns": 3,
    "thumb": 80, "chosen": None, "liked": None, "event": {}, "can_undo": False, "status": "",
}  # fmt: skip
SHEET = {
    "question": "How good?", "scale": ["bad", "poor", "fair", "good", "excellent"], "thumb": 80,
    "rater": "anna", "query": 1, "answers": [1, 1], "position": 2, "total": 4, "given": 0,
    "error": "", "event": {},
}  # fmt: skip


def test_thumbs_come_with_likes_and_go_without(open_page):
    page = open_page("grid", GRID)
    assert page.locator("button:visible").count() == 3
    page.evaluate("model.set('liked', [null, true, false])")
    assert page.locator(".thumb").count() == 6
    pressed = page.locator(".thumb[aria-pressed=true]")
    labels = pressed.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert labels == ["like result 2", "dislike result 3"]
    assert page.locator(".result span").all_inner_texts() == ["a", "<b>", "c"]


def test_a_thumb_tells_what_it_says_and_again_takes_it_back(open_page):
    page = open_page("grid", GRID | {"liked": [None, True, None]})
    page.get_by_role("button", name="dislike result 1").click()
    assert event_of(page) == {"act": "judge", "number": 0, "liked": False}
    page.get_by_role("button", name="like result 2", exact=True).press("Enter")
    assert event_of(page) == {"act": "judge", "number": 1, "liked": None}
    assert page.evaluate("model.get('event').count") == 2
    assert page.evaluate("model.get('chosen')") is None


def test_the_bar_ranks_again_and_undoes_and_keeps_the_focus(open_page):
    page = open_page("grid", GRID | {"liked": [None] * 3, "status": "1 liked"})
    undo, again = page.get_by_text("Undo"), page.get_by_text("Rank again")
    assert undo.is_disabled()
    page.evaluate("model.set('can_undo', true)")
    undo.click()
    assert event_of(page) == {"act": "undo"}
    again.click()
    assert event_of(page) == {"act": "rank"}
    page.evaluate("model.set('titles', ['x', 'y', 'z'])")
    assert page.evaluate("document.activeElement.textContent") == "Rank again"
    assert page.get_by_text("1 liked").is_visible()


def test_keys_rate_skip_and_go_back(open_page):
    page = open_page("rating", SHEET)
    page.locator(".regionlab-rating").focus()
    for key, expected in {
        "4": {"act": "rate", "rating": 4},
        "s": {"act": "skip"},
        "Backspace": {"act": "back"},
        "1": {"act": "rate", "rating": 1},
    }.items():
        page.keyboard.press(key)
        assert event_of(page) == expected | {"position": 2}
    for key in ("6", "0", "x", "Enter", "Control+5"):
        page.keyboard.press(key)
    assert page.evaluate("model.get('event').count") == 4


def test_buttons_rate_too_and_the_answer_given_is_pressed(open_page):
    page = open_page("rating", SHEET | {"given": 3})
    pressed = page.locator("button[aria-pressed=true]")
    assert pressed.all_inner_texts() == ["3 fair"]
    page.get_by_role("button", name="5 excellent").click()
    assert event_of(page) == {"act": "rate", "rating": 5, "position": 2}
    page.keyboard.press("2")  # the focus is on the sheet
    assert event_of(page)["rating"] == 2


def test_a_sheet_shows_how_far_it_is(open_page):
    page = open_page("rating", SHEET)
    assert page.locator(".count").inner_text() == "2 of 4"
    assert page.locator("progress").evaluate("bar => [bar.value, bar.max]") == [1, 4]
    assert page.locator(".answers img").count() == 2
    page.evaluate("model.set('error', 'the <i>disk</i> is full')")
    assert page.get_by_role("alert").inner_text() == "the <i>disk</i> is full"
    page.evaluate("model.set('position', 5)")
    assert page.get_by_text("everything is rated").is_visible()
    assert page.locator(".count").inner_text() == "all 4 done"


def test_a_name_starts_the_sheet_and_its_letters_rate_nothing(open_page):
    page = open_page("rating", SHEET | {"position": 0, "rater": ""})
    name = page.get_by_role("textbox")
    name.press_sequentially("s1")
    assert page.evaluate("model.get('event').count ?? 0") == 0
    name.press("Enter")
    assert event_of(page) == {"act": "start", "rater": "s1", "position": 0}


@pytest.mark.parametrize(("name", "state"), [("grid", GRID), ("rating", SHEET)])
def test_a_widget_that_leaves_listens_no_more(open_page, name, state):
    page = open_page(name, state)
    page.evaluate("leave()")
    assert page.evaluate("Object.values(handlers).flat().length") == 0


@pytest.mark.parametrize("width", [900, 375])
def test_nothing_is_cut_off_at_the_width_of_a_phone(open_page, width):
    for name, state in (("rating", SHEET), ("grid", GRID | {"liked": [None] * 3})):
        page = open_page(name, state)
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
