"""The page in a real browser, on a desk and on a phone, against the real service."""

import contextlib
import io
import re
import shutil

import pytest
from PIL import Image

from regionlab.service.app import create_app
from service_world import COUNT, HTML_NAME, build_world, serve

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here to show the page in", allow_module_level=True)

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to steer a browser")

PATIENCE = 60_000  # milliseconds, for a slow machine
SCREENS = {
    "desk": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
        "color_scheme": "dark",
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def service(world):
    with serve(create_app(world.index, world.encoder, world.segmenter)) as service:
        yield service


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, service, screen):
    """Open the page; whatever it wants from elsewhere, and each error, goes to a list."""
    context = browser.new_context(**SCREENS[screen])
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.mistakes = []
    ours = (service.url, "blob:")
    page.on("request", lambda r: r.url.startswith(ours) or page.mistakes.append(r.url))
    page.on("console", lambda m: m.type == "error" and page.mistakes.append(m.text))
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.goto(service.url)
    return page


@pytest.fixture(params=list(SCREENS))
def page(request, browser, service):
    page = open_page(browser, service, request.param)
    yield page
    assert page.mistakes == []
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than the screen"
    page.context.close()


@pytest.fixture
def desk(browser, service):
    page = open_page(browser, service, "desk")
    yield page
    page.context.close()


def take(page, number):
    """Take an image of the collection, by its place."""
    page.get_by_role("button", name="From the collection").click()
    page.locator("#listed button").nth(number).click()
    stage(page).wait_for()


def stage(page):
    return page.locator(".regionlab-picker .stage > img")


def place(page, x, y):
    """Where a place of the picture is on the screen; (0, 0) to (1, 1)."""
    box = stage(page).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def draw_box(page, start, end):
    stage(page).scroll_into_view_if_needed()
    with page.expect_response("**/mask") as answer:
        page.mouse.move(*place(page, *start))
        page.mouse.down()
        page.mouse.move(*place(page, *end), steps=3)
        page.mouse.up()
    return answer.value.json()


def tap(page, x, y):
    stage(page).scroll_into_view_if_needed()
    with page.expect_response("**/mask") as answer:
        touch = page.evaluate("matchMedia('(pointer: coarse)').matches")
        (page.touchscreen.tap if touch else page.mouse.click)(*place(page, x, y))
    return answer.value.json()


def search(page):
    with page.expect_response("**/search") as answer:
        page.get_by_role("button", name="Search", exact=True).click()
    cards(page).first.wait_for()
    return answer.value.json()


def cards(page):
    return page.locator("#results > li")


def masks(page):
    return page.locator(".regionlab-picker .layer img")


def names(page):
    """The names of the results, from what the buttons say to those who cannot see."""
    labels = page.locator(".open").evaluate_all("all => all.map(one => one.ariaLabel)")
    return [re.fullmatch(r"open result \d+: (.+), score -?[\d.]+", one)[1] for one in labels]


def test_from_an_image_to_a_region_to_results_and_on(page):
    take(page, 5)
    found = draw_box(page, (0.2, 0.2), (0.6, 0.6))
    masks(page).wait_for()
    assert masks(page).evaluate("mask => mask.naturalWidth") == 256
    (mask,) = found["masks"]
    assert mask["box"]

    answer = search(page)
    assert names(page) == [result["name"] for result in answer["results"]]
    assert cards(page).count() == 12
    shown = cards(page).locator(".score span").all_inner_texts()
    assert shown == [f"{result['score']:.3f}" for result in answer["results"]]
    outlines = cards(page).first.locator("path.line")
    assert outlines.get_attribute("d") == answer["results"][0]["regions"][0]["outline"]

    page.locator(".open").nth(1).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("like what is wanted").wait_for()
    second = answer["results"][1]
    assert dialog.get_by_role("heading").inner_text() == f"2. {second['name']}"
    with page.expect_response("**/search") as onward:
        dialog.get_by_role("button", name="search with this region").click()
    assert not dialog.is_visible()
    assert onward.value.json()["image_id"] == second["image_id"]
    assert second["name"] not in names(page)  # the query's own image is left out
    assert page.locator(".regionlab-picker .box").count() == 1
    masks(page).wait_for()


def test_a_file_is_sent_once_and_a_point_finds_its_mask(page, world):
    data = world.index.path(3).read_bytes()
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}
    page.locator("#file").set_input_files(file)
    stage(page).wait_for()
    sent = []
    page.on("request", lambda r: r.method == "POST" and sent.append(r.post_data or ""))
    first = tap(page, 0.5, 0.5)
    assert first["image_id"].startswith("upload-")
    tap(page, 0.2, 0.2)
    masks(page).wait_for()
    assert search(page)["image_id"] == first["image_id"]
    assert [first["image_id"] in body for body in sent] == [False, True, True]


def test_feedback_reorders_and_can_be_undone(page):
    page.get_by_label("Words", exact=True).fill("a red circle")
    search(page)
    before = names(page)
    page.get_by_role("button", name="right: result 12").click()
    page.get_by_role("button", name="wrong: result 1", exact=True).click()
    refine = page.get_by_role("button", name="Refine: 1 right, 1 wrong")
    with page.expect_response("**/search") as answer:
        refine.click()
    page.locator(".move").first.wait_for()
    after = [result["name"] for result in answer.value.json()["results"]]
    assert answer.value.json()["judged"] == 2
    assert names(page) == after
    assert after != before
    assert after.index(before[11]) < 11
    moved = cards(page).nth(after.index(before[11])).locator(".move")
    assert moved.inner_text() == "was 12"
    page.get_by_role("button", name="Undo feedback").click()
    assert names(page) == before
    assert page.locator(".move").count() == 0
    assert refine.is_hidden()


def test_words_find_a_part_and_objects_can_be_unwanted(page):
    take(page, 5)
    draw_box(page, (0.2, 0.2), (0.6, 0.6))
    page.get_by_role("button", name="new object").click()
    tap(page, 0.8, 0.8)
    parts = page.locator("#parts li")
    assert parts.count() == 2
    parts.nth(1).get_by_role("button", name="without").click()
    assert (
        parts.nth(1).get_by_role("button", name="without").get_attribute("aria-pressed") == "true"
    )
    answer = search(page)
    assert [part["weight"] for part in answer["parts"]] == [1, -0.5]
    cards(page).first.get_by_text("Why").click()
    cards(page).first.get_by_text("like what is unwanted").wait_for()
    on = cards(page).first.get_by_role("button", name="search with this region")
    assert on.count() == 2


def test_html_in_words_and_names_is_text(desk):
    words = "<img src=x onerror=document.title='hit'><b>bold</b>"
    desk.get_by_label("Words", exact=True).fill(words)
    desk.locator("summary").first.click()
    desk.get_by_role("spinbutton", name="Results").fill("100")
    search(desk)
    assert cards(desk).count() == COUNT
    assert HTML_NAME in names(desk)
    desk.locator(".open").nth(names(desk).index(HTML_NAME)).click()
    assert desk.locator("#result-title").inner_text().endswith(HTML_NAME)
    desk.keyboard.press("Escape")
    take(desk, 0)
    desk.get_by_role("textbox", name="words for object 1").fill(words)
    draw_box(desk, (0.2, 0.2), (0.6, 0.6))
    assert desk.locator("#parts .name").inner_text() == words
    search(desk)
    cards(desk).first.get_by_text("Why").click()
    cards(desk).first.get_by_text(f"“{words}”").first.wait_for()
    assert desk.title() == "regionlab: search by region"
    assert desk.locator("main b", has_text="bold").count() == 0


def test_everything_can_be_done_by_keyboard(desk):
    keyboard = desk.keyboard
    desk.get_by_role("button", name="From the collection").focus()
    keyboard.press("Enter")
    desk.locator("#listed button").first.focus()
    keyboard.press("Tab")
    keyboard.press("Enter")
    stage(desk).wait_for()
    words = desk.get_by_role("textbox", name="words for object 1")
    words.focus()
    keyboard.type("a star")
    with desk.expect_response("**/mask"):
        keyboard.press("Enter")
    field = desk.get_by_label("Words", exact=True)
    field.focus()
    keyboard.type("a blue star")
    desk.locator(".regionlab-picker").press("Delete")  # the words for a region, found or not
    field.focus()
    with desk.expect_response("**/search"):
        keyboard.press("Enter")
    cards(desk).first.wait_for()
    desk.locator(".open").first.focus()
    keyboard.press("Enter")
    assert desk.get_by_role("dialog").is_visible()
    keyboard.press("Escape")
    assert not desk.get_by_role("dialog").is_visible()
    thumb = desk.get_by_role("button", name="right: result 1", exact=True)
    thumb.focus()
    keyboard.press("Space")
    assert thumb.get_attribute("aria-pressed") == "true"


def test_every_control_has_a_name(desk):
    take(desk, 3)
    search(desk)
    nameless = (
        "all => all.filter(one => !one.labels?.length && !one.ariaLabel && !one.textContent.trim())"
    )
    controls = desk.locator("button, input, select, summary, a")
    assert controls.evaluate_all(f"{nameless}.map(one => one.outerHTML)") == []


def test_only_points_outside_are_told_and_not_sent(desk):
    take(desk, 3)
    desk.mouse.click(*place(desk, 0.5, 0.5), button="right")
    desk.get_by_text("object 1: only points outside").wait_for()
    desk.get_by_role("button", name="Search", exact=True).click()
    desk.get_by_role("alert").get_by_text("only points outside").wait_for()


def test_a_refusal_is_told(desk):
    desk.get_by_role("button", name="Search", exact=True).click()
    desk.get_by_role("alert").get_by_text("nothing to look for").wait_for()
    desk.locator("#file").set_input_files(
        {"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    )
    desk.get_by_role("alert").get_by_text("cannot show such a file").wait_for()


def test_a_large_photograph_is_made_smaller_before_it_is_sent(desk):
    file = io.BytesIO()
    Image.new("RGB", (5000, 2500), "teal").save(file, "PNG")
    upload = {"name": "large.png", "mimeType": "image/png", "buffer": file.getvalue()}
    desk.locator("#file").set_input_files(upload)
    stage(desk).wait_for()
    answer = draw_box(desk, (0.2, 0.2), (0.6, 0.6))
    assert (answer["width"], answer["height"]) == (2000, 1000)


def test_a_picture_the_service_has_forgotten_is_sent_again(desk, world):
    data = world.index.path(3).read_bytes()
    desk.locator("#file").set_input_files(
        {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}
    )
    stage(desk).wait_for()
    draw_box(desk, (0.2, 0.2), (0.6, 0.6))
    desk.context.clear_cookies()  # nobody knows the visitor any more
    search(desk)


def test_the_api_s_page_shows_every_operation(desk, service):
    desk.goto(f"{service.url}/docs")
    desk.get_by_role("heading", name="POST/search").wait_for()
    headings = desk.locator("#docs > section:has(.method) > h2").all_inner_texts()
    paths = desk.request.get(f"{service.url}/openapi.json").json()["paths"]
    assert len(headings) == sum(map(len, paths.values())) == 5
    assert desk.mistakes == []
    for target in desk.locator("#docs a[href^='#']").evaluate_all("all => all.map(a => a.hash)"):
        assert desk.locator(f"[id='{target[1:]}']").count() == 1


# What is wanted last wins, and a failure leaves all as it was


def hold_first(page, pattern):
    """Let the first request of a pattern wait; return the list that it will be in."""
    held = []

    def decide(route):
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(pattern, decide)
    return held


def let_go(page, held):
    """Let what was held go on, and give the page time to do what it should not."""
    with contextlib.suppress(sync_api.Error):  # it was given up
        held[0].continue_()
    page.wait_for_timeout(700)


def get_source(page):
    return stage(page).get_attribute("src")


def search_words(page, words="a red circle"):
    page.get_by_label("Words", exact=True).fill(words)
    return search(page)


def take_slowly(page, first, second):
    """Ask for a picture that comes late, then for another; return what is shown at the end."""
    held = hold_first(page, "**/image/*size=1600")
    first()
    page.wait_for_timeout(300)
    with page.expect_response("**/image/*size=1600"):
        second()
    stage(page).wait_for()
    page.wait_for_timeout(300)
    shown = get_source(page)
    let_go(page, held)
    assert get_source(page) == shown


def choose(page, number):
    page.get_by_role("button", name="From the collection").click()
    page.locator("#listed button").nth(number).click()


def test_a_newer_search_with_a_result_wins_over_an_older_one(desk):
    answer = search_words(desk)
    buttons = desk.locator("#results .ons button")
    take_slowly(desk, buttons.nth(0).click, buttons.nth(1).click)
    assert answer["results"][1]["name"] not in names(desk)  # the query's own image
    assert desk.mistakes == []


def test_a_newer_choice_of_the_collection_wins_over_an_older_one(desk):
    take_slowly(desk, lambda: choose(desk, 3), lambda: choose(desk, 5))


def test_a_file_wins_over_a_result_that_was_asked_for_before(desk, world):
    search_words(desk)
    before = names(desk)
    held = hold_first(desk, "**/image/*size=1600")
    desk.locator("#results .ons button").first.click()
    desk.wait_for_timeout(300)
    data = world.index.path(3).read_bytes()
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}
    desk.locator("#file").set_input_files(file)
    stage(desk).wait_for()
    shown = get_source(desk)
    let_go(desk, held)
    assert get_source(desk) == shown
    assert names(desk) == before


def test_a_search_that_is_given_up_for_another_picture_shows_nothing(desk):
    take(desk, 3)
    held = hold_first(desk, "**/search")
    desk.get_by_role("button", name="Search", exact=True).click()
    desk.wait_for_timeout(200)
    choose(desk, 5)
    desk.wait_for_timeout(500)
    let_go(desk, held)
    assert cards(desk).count() == 0
    assert desk.locator("#results").get_attribute("aria-busy") is None


def contrast(page, selector):
    """Return the contrast of an element's colour with its ground, as WCAG has it."""
    styles = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    lights = []
    for color in page.eval_on_selector(selector, styles):
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_pressed_thumb_is_seen_under_the_pointer(desk, scheme):
    desk.emulate_media(color_scheme=scheme)
    search_words(desk)
    thumb = desk.get_by_role("button", name="right: result 1", exact=True)
    thumb.hover()
    assert contrast(desk, ".judge") >= 4.5
    thumb.click()
    assert thumb.evaluate("e => e.matches(':hover')")
    assert contrast(desk, ".judge[aria-pressed=true]") >= 4.5


def fail_search(page):
    page.route("**/search", lambda route: route.abort())
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    page.unroute("**/search")


def test_a_failed_search_keeps_thumbs_and_refine_as_they_were(desk):
    search_words(desk)
    before = names(desk)
    desk.get_by_role("button", name="right: result 2", exact=True).click()
    refine = desk.get_by_role("button", name="Refine: 1 right, 0 wrong")
    fail_search(desk)
    assert names(desk) == before
    assert desk.locator(".judge[aria-pressed=true]").count() == 1
    with desk.expect_response("**/search") as answer:
        refine.click()
    assert answer.value.json()["judged"] == 1


def test_a_failed_search_keeps_the_feedback_that_can_be_undone(desk):
    search_words(desk)
    before = names(desk)
    desk.get_by_role("button", name="wrong: result 1", exact=True).click()
    with desk.expect_response("**/search"):
        desk.get_by_role("button", name="Refine: 0 right, 1 wrong").click()
    desk.locator(".move").first.wait_for()
    fail_search(desk)
    desk.get_by_role("button", name="Undo feedback").click()
    assert names(desk) == before
    search(desk)
    assert desk.get_by_role("button", name="Undo feedback").is_hidden()
    assert desk.locator(".judge[aria-pressed=true]").count() == 0
