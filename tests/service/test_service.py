"""The API of the search service, against the library that it speaks for."""

import base64
import io
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from regionlab.data.images import read_image
from regionlab.data.masks import rle_to_mask
from regionlab.data.prompts import Box, Points
from regionlab.regions.grounding import find_words
from regionlab.search.feedback import FeedbackSession
from regionlab.search.images import search_image, search_indexed, search_text
from regionlab.search.query import Part, Query, part_from_region, part_from_words
from regionlab.search.regions import search_regions
from regionlab.search.scoring import Rol
from regionlab.service.app import SHARED, STATIC, WIDGETS, create_app, read_files
from regionlab.service.limits import Limits
from service_world import COUNT, build_world, post

BOX = {"kind": "box", "x0": 30.0, "y0": 30.0, "x1": 150.0, "y1": 150.0}
CLICK = {"kind": "points", "xy": [[128, 128], [20, 20]], "labels": [1, 0]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def app(world):
    return create_app(world.index, world.encoder, world.segmenter)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


def make_client(world, *, cookies=None, **options):
    app = create_app(world.index, world.encoder, world.segmenter, **options)
    return TestClient(app, cookies=cookies)


def search(client, **fields):
    if "prompts" in fields:
        fields["prompts"] = json.dumps(fields["prompts"])
    response = post(client, "/search", **fields)
    assert response.status_code == 200, response.text
    return response.json()


def refuse(client, status, path="/search", **fields):
    """Ask what must be refused with a status; return the reason."""
    response = post(client, path, **fields)
    assert response.status_code == status, response.text
    return response.json()["detail"]


def pixels(world, number):
    return read_image(world.index.path(world.index.rows_of([world.ids[number]])[0]))


def file_of(world, number):
    return world.index.path(world.index.rows_of([world.ids[number]])[0]).read_bytes()


def assert_same(answer, ranking):
    """The answer has the images, scores and regions of the library's ranking."""
    table = ranking.table()
    assert [result["image_id"] for result in answer["results"]] == table["image_id"].tolist()
    scores = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, table["score"], atol=1e-5)
    if "regions" in table:
        found = [[match["region_id"] for match in r["regions"]] for r in answer["results"]]
        assert found == [list(regions) for regions in table["regions"]]


# Queries


def test_words_find_what_the_library_finds(world, client):
    answer = search(client, words="a red circle", k=7)
    assert_same(answer, search_text(world.index, "a red circle", world.encoder, k=7))
    assert answer["target"] == "images"


def test_a_file_finds_what_the_library_finds(world, client):
    answer = search(client, image=file_of(world, 3), k=5)
    assert_same(answer, search_image(world.index, pixels(world, 3), world.encoder, k=5))


def test_an_image_of_the_collection_finds_others(world, client):
    name = world.ids[4]
    answer = search(client, image_id=name, k=5)
    assert_same(answer, search_indexed(world.index, name, k=5, exclude_self=True))
    assert search(client, image_id=name, exclude_self=False)["results"][0]["image_id"] == name


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [(BOX, Box(30, 30, 150, 150)), (CLICK, Points(((128, 128), (20, 20)), (1, 0)))],
)
def test_a_region_finds_what_the_library_finds(world, client, asked, prompt):
    image = pixels(world, 5)
    part = part_from_region(world.encoder, image, world.segmenter.segment(image, prompt))
    expected = search_regions(world.index, Query([part]), k=6)
    assert_same(search(client, image=file_of(world, 5), prompts=[asked], k=6), expected)


def test_words_choose_a_region_of_an_image(world, client):
    image, words = pixels(world, 2), "a purple circle"
    (region,) = find_words(image, words, world.segmenter, world.encoder)
    part = part_from_region(world.encoder, image, region)
    answer = search(client, image=file_of(world, 2), prompts=[{"kind": "text", "words": words}])
    assert_same(answer, search_regions(world.index, Query([part])))
    assert answer["parts"][0]["box"] == region.box.tolist()


def test_several_parts_unwanted_ones_and_words_go_together(world, client):
    image = pixels(world, 5)
    segment = world.segmenter.segment
    parts = [
        part_from_region(world.encoder, image, segment(image, Box(30, 30, 150, 150)), weight=2),
        Part(world.encoder.encode_images(image)[0], np.array([0, 0, 1, 1]), weight=-0.5),
        part_from_words(world.encoder, "a blue star", weight=1.5),
    ]
    prompts = [{**BOX, "weight": 2}, {"kind": "whole", "weight": -0.5}]
    answer = search(
        client,
        image=file_of(world, 5),
        prompts=prompts,
        words="a blue star",
        words_weight=1.5,
        target="both",
        image_weight=0.3,
        aggregation="mean",
        alpha=0.8,
        beta=0.4,
        rol_region="overlap",
    )
    ranking = search_regions(
        world.index,
        Query(parts),
        target="both",
        image_weight=0.3,
        aggregation="mean",
        rol=Rol(0.8, 0.4, "overlap"),
    )
    assert_same(answer, ranking)
    assert all(result["terms"]["negative"] < 0 for result in answer["results"])


def test_a_filter_leaves_the_images_that_match(world, client):
    names = world.index.images["image_id"].iloc[[4, 1]].tolist()
    answer = search(client, words="a blue star", where=f"image_id in {names}")
    assert {result["image_id"] for result in answer["results"]} == set(names)
    query = Query([part_from_words(world.encoder, "a blue star")])
    keep = np.isin(np.arange(len(world.index)), [4, 1])
    assert_same(answer, search_regions(world.index, query, target="images", where=keep, k=2))


def test_words_alone_can_be_unwanted(world, client):
    prompts = [
        {"kind": "text", "words": "a red circle"},
        {"kind": "text", "words": "grass", "weight": -0.5},
    ]
    wanted, unwanted = (
        part_from_words(world.encoder, words) for words in ("a red circle", "grass")
    )
    query = Query([wanted, Part(unwanted.vector, weight=-0.5)])
    assert_same(
        search(client, prompts=prompts), search_regions(world.index, query, target="images")
    )


def test_the_terms_of_a_score_sum_to_it(world, client):
    prompts = [BOX, {**CLICK, "weight": -0.5}]
    answer = search(client, image_id=world.ids[5], prompts=prompts, beta=0.5)
    for result in answer["results"]:
        assert sum(result["terms"].values()) == pytest.approx(result["score"], abs=1e-5)
    assert any(result["terms"]["iou"] for result in answer["results"])


def test_a_matched_region_comes_with_its_mask_and_outline(world, client):
    result = search(client, image_id=world.ids[5], prompts=[BOX])["results"][0]
    (match,) = result["regions"]
    regions = world.index.regions
    row = int(np.flatnonzero(regions["region_id"] == match["region_id"])[0])
    assert regions["image_id"].iloc[row] == result["image_id"]
    np.testing.assert_array_equal(rle_to_mask(match["rle"]), world.index.region_mask(row))
    assert match["area"] == world.index.region_mask(row).sum()
    assert match["similarity"] == pytest.approx(result["score"], abs=1e-5)
    assert re.fullmatch(r"(M[\d. ]+(L[\d. ]+)+Z)+", match["outline"])


def test_more_results_than_images_are_all_images(client):
    assert len(search(client, words="a star", k=100)["results"]) == COUNT


def test_time_is_told_by_stage(client, world):
    seconds = search(client, image=file_of(world, 6), prompts=[BOX])["seconds"]
    stages = [seconds[name] for name in ("read", "segment", "encode", "search", "describe")]
    assert min(stages) > 0
    assert sum(stages) <= seconds["total"] + 1e-4


# Pictures that are remembered


def test_the_id_in_an_answer_stands_for_the_file(world, client):
    first = search(client, image=file_of(world, 7), prompts=[BOX])
    again = search(client, image_id=first["image_id"], prompts=[BOX])
    assert again["results"] == first["results"]


def test_nobody_gets_another_s_picture(world):
    with make_client(world) as client:
        client.get("/")  # brings a name
        name = search(client, image=file_of(world, 7))["image_id"]
        search(client, image_id=name)
        client.cookies.clear()
        assert refuse(client, 404, image_id=name) == f"no image {name!r}"
        client.get("/")
        refuse(client, 404, image_id=name)


def test_a_picture_is_forgotten_when_there_are_too_many(world):
    with make_client(world, limits=Limits(pictures=1)) as client:
        name = search(client, image=file_of(world, 7))["image_id"]
        search(client, image=file_of(world, 8))
        refuse(client, 404, image_id=name)
        assert client.get("/health").json()["pictures"] == 1


def test_a_picture_is_encoded_once(world):
    with make_client(world) as client:
        for _ in range(3):
            search(client, image=file_of(world, 9), prompts=[BOX, {"kind": "whole"}])
        assert client.get("/health").json()["batches"]["images"]["items"] == 2


def test_a_made_up_name_is_no_visitor_s(world):
    with make_client(world, cookies={"visitor": "../../etc"}) as client:
        search(client, words="a star")
        assert client.get("/health").json()["visitors"] == 1
        assert "visitor=" in client.get("/").headers["set-cookie"]


def test_the_cookie_is_for_this_site_alone(client):
    client.cookies.clear()
    cookie = client.get("/").headers["set-cookie"].lower()
    client.cookies.clear()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


# Feedback


@pytest.mark.parametrize("method", ["rocchio", "logistic"])
def test_feedback_is_that_of_the_library(world, client, method):
    good, other, bad = world.ids[10:13]
    words, image = "a red circle", pixels(world, 5)
    region = world.segmenter.segment(image, Box(30, 30, 150, 150))
    parts = [
        part_from_region(world.encoder, image, region, weight=2),
        part_from_words(world.encoder, words),
    ]
    history = [(good, True), (other, True), (bad, False)]
    session = FeedbackSession(world.index, Query(parts), method=method, history=history)
    answer = search(
        client,
        image=file_of(world, 5),
        prompts=[{**BOX, "weight": 2}],
        words=words,
        liked=[good, other],
        disliked=[bad],
        feedback=method,
    )
    assert_same(answer, session.rank())
    assert answer["judged"] == 3


def test_a_region_s_id_stands_for_its_image(world, client):
    regions = world.index.regions
    by_region = search(client, words="a star", liked=[regions["region_id"].iloc[3]])
    by_image = search(client, words="a star", liked=[regions["image_id"].iloc[3]])
    assert by_region["results"] == by_image["results"]


def test_who_likes_and_dislikes_an_image_dislikes_it(world, client):
    both = search(client, words="a star", liked=world.ids[:1], disliked=world.ids[:1])
    assert both["results"] == search(client, words="a star", disliked=world.ids[:1])["results"]
    assert both["judged"] == 1


# Masks


def test_masks_are_those_of_the_segmenter(world, client):
    fields = {"image": file_of(world, 5), "prompts": json.dumps([BOX, CLICK])}
    answer = post(client, "/mask", **fields).json()
    prompts = [Box(30, 30, 150, 150), Points(((128, 128), (20, 20)), (1, 0))]
    assert (answer["width"], answer["height"]) == pixels(world, 5).shape[1::-1]
    for mask, prompt in zip(answer["masks"], prompts, strict=True):
        region = world.segmenter.segment(pixels(world, 5), prompt)
        np.testing.assert_array_equal(rle_to_mask(mask["rle"]), region.mask)
        assert mask["box"] == region.box.tolist()
        assert mask["area"] == region.area


def test_a_mask_comes_as_a_layer_in_the_colour_asked_for(world, client):
    prompts = json.dumps([{**BOX, "color": "#ff0080"}])
    (mask,) = post(client, "/mask", image_id=world.ids[5], prompts=prompts).json()["masks"]
    layer = np.array(Image.open(io.BytesIO(base64.b64decode(mask["png"]))))
    inside = rle_to_mask(mask["rle"])
    np.testing.assert_array_equal(layer[..., 3] > 0, inside)
    assert (layer[inside, :3] == [255, 0, 128]).all()


def test_a_prompt_without_a_mask_says_why_beside_the_others(world, client):
    outside = {"kind": "points", "xy": [[4000, 10]]}
    answer = post(client, "/mask", image_id=world.ids[5], prompts=json.dumps([outside, BOX]))
    first, second = answer.json()["masks"]
    assert first["error"].startswith("point (4000, 10) is outside the image")
    assert second["error"] is None


# Images


def test_an_image_comes_by_its_id_in_its_size_or_smaller(world, client):
    name = world.ids[3]
    full = Image.open(io.BytesIO(client.get(f"/image/{name}").content))
    assert full.size == pixels(world, 3).shape[1::-1]
    small = client.get(f"/image/{name}?size=64")
    assert small.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(small.content)).size) == 64


def test_every_image_of_an_answer_can_be_fetched(client):
    for result in search(client, words="a star", k=100)["results"]:
        assert client.get(result["thumbnail_url"]).status_code == 200
        assert client.get(result["image_url"]).status_code == 200


def test_the_collection_is_listed_page_by_page(client, world):
    pages = [client.get(f"/images?start={start}&count=10").json() for start in (0, 10, 20, 30)]
    names = [image["image_id"] for page in pages for image in page["images"]]
    assert names == world.index.images["image_id"].tolist()
    assert {page["total"] for page in pages} == {COUNT}


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "/etc/passwd", "%00", "a%20b%2f00.jpg", "images.parquet"]
)
def test_no_path_is_an_id(client, name):
    response = client.get(f"/image/{name}")
    assert response.status_code == 404
    assert response.json()["detail"].startswith("no image")


def test_an_image_whose_file_is_gone_is_not_found_and_its_path_not_told(world, tmp_path):
    folder = world.index.path(0).parent
    with make_client(world) as client:
        path = world.index.path(20)
        kept = path.rename(tmp_path / "kept")
        try:
            response = client.get(f"/image/{world.index.images['image_id'].iloc[20]}")
        finally:
            kept.rename(path)
    assert response.status_code == 404
    assert str(folder) not in response.text


# Refusals


REFUSED = [
    ({}, 422, "nothing to look for"),
    ({"words": " "}, 422, "words: "),
    ({"words": "x" * 301}, 422, "words: "),
    ({"words": "red " * 74}, 422, "too many words"),
    ({"words": "x", "k": 0}, 422, "k: "),
    ({"words": "x", "k": -3}, 422, "k: "),
    ({"words": "x", "k": 10**30}, 422, "k: "),
    ({"words": "x", "k": "many"}, 422, "k: "),
    ({"words": "x", "kk": 3}, 422, "kk: "),
    ({"words": "x", "target": "all"}, 422, "target: "),
    ({"words": "x", "where": "colour == 'red'"}, 422, "no column 'colour' to filter by"),
    ({"words": "x", "where": "__import__('os')"}, 422, "only comparisons of columns"),
    ({"words": "x", "alpha": 0}, 422, "alpha and beta are both 0"),
    ({"words": "x", "beta": 1}, 422, "no box"),
    ({"words": "x", "liked": ["nobody"]}, 404, "no image 'nobody'"),
    ({"words": "x", "liked": ["a"] * 201}, 422, "liked: "),
    ({"image_id": "nobody"}, 404, "no image 'nobody'"),
    ({"image": b"no picture"}, 422, "not an image"),
    ({"image": b""}, 422, "not an image"),
    ({"image": b"GIF89a\x01\x00\x01\x00"}, 422, "image"),
    ({"image": "a string"}, 422, "image: "),
    ({"prompts": "{"}, 422, "prompts: "),
    ({"prompts": '{"kind": "box"}'}, 422, "prompts: "),
    ({"prompts": "[" * 50_000}, 422, "prompts: "),
    ({"prompts": '[{"kind": "circle"}]'}, 422, "prompts"),
    ({"prompts": '[{"kind": "text", "words": "\\ud800"}]'}, 422, "prompts: "),
    ({"prompts": json.dumps([BOX])}, 422, "prompt 0 needs an image"),
    ({"prompts": '[{"kind": "whole"}]'}, 422, "prompt 0 needs an image"),
    ({"prompts": json.dumps([{"kind": "text", "words": "x", "weight": -1}])}, 422, "positive"),
]


@pytest.mark.parametrize(("fields", "status", "reason"), REFUSED)
def test_what_cannot_be_answered_is_refused_with_a_reason(client, fields, status, reason):
    detail = refuse(client, status, **fields)
    assert reason in detail
    assert len(detail) < 1000


WRONG_PROMPTS = [
    ({**BOX, "x1": 10}, "corners"),
    ({**BOX, "x1": 30}, "no area"),
    ({**BOX, "x0": float("nan")}, "finite"),
    ({**BOX, "x0": 10**400}, "finite"),
    ({**BOX, "x0": 4000, "x1": 5000}, "outside the image"),
    ({**BOX, "weight": 0}, "weight of 0"),
    ({**BOX, "weight": 1e300}, "100"),
    ({**BOX, "size": 3}, "size"),
    ({**BOX, "color": "red"}, "color"),
    ({"kind": "points", "xy": []}, "xy"),
    ({"kind": "points", "xy": [[1, 2]] * 65}, "xy"),
    ({"kind": "points", "xy": [[1, 2, 3]]}, "xy"),
    ({"kind": "points", "xy": [[1, 2]], "labels": [0]}, "only negative points"),
    ({"kind": "points", "xy": [[1, 2]], "labels": [1, 1]}, "labels"),
    ({"kind": "points", "xy": [[1, 2]], "labels": [2]}, "labels"),
]


@pytest.mark.parametrize(("prompt", "reason"), WRONG_PROMPTS)
def test_a_wrong_prompt_is_refused_with_a_reason(world, client, prompt, reason):
    assert reason in refuse(client, 422, image_id=world.ids[0], prompts=json.dumps([prompt]))


def test_too_many_prompts_are_refused(world, client):
    detail = refuse(client, 422, image_id=world.ids[0], prompts=json.dumps([BOX] * 17))
    assert detail.startswith("prompts: ")


def test_an_image_and_an_id_together_are_refused(world, client):
    fields = {"image": file_of(world, 1), "image_id": world.ids[1]}
    assert "both image and image_id" in refuse(client, 422, **fields)


def test_masks_need_an_image(client):
    assert "need an image" in refuse(client, 422, "/mask", prompts=json.dumps([BOX]))


def test_a_picture_of_too_many_pixels_is_refused(world):
    with make_client(world, limits=Limits(pixels=100)) as client:
        assert "at most 100 in all" in refuse(client, 413, image=file_of(world, 1))


def test_a_line_of_pixels_is_refused(client):
    file = io.BytesIO()
    Image.new("RGB", (3000, 1)).save(file, "PNG")
    assert "too narrow" in refuse(client, 422, image=file.getvalue())


def test_a_body_over_the_limit_is_refused(world):
    with make_client(world, limits=Limits(body_bytes=5000)) as client:
        assert "at most 5,000 bytes" in refuse(client, 413, image=bytes(6000))
        chunks = (b"x" * 1000 for _ in range(10))  # of unknown length
        headers = {"content-type": "multipart/form-data; boundary=x"}
        response = client.post("/search", content=chunks, headers=headers)
        assert response.status_code == 413
        assert "at most 5,000 bytes" in response.json()["detail"]


def test_more_than_may_wait_are_told_to_come_again(world):
    with make_client(world) as client:
        guard = find_guard(client.app)
        guard.busy = guard.limits.waiting
        response = post(client, "/search", words="x")
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200


def find_guard(app):
    layer = app.middleware_stack
    while not hasattr(layer, "busy"):
        layer = layer.app
    return layer


def test_a_request_that_takes_too_long_is_given_up(world):
    with make_client(world, limits=Limits(seconds=0.001)) as client:
        assert "not done within 0.001 seconds" in refuse(client, 408, image=file_of(world, 1))


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("evil.example", 400),
     ("", 400), ("[", 400), ("localhost.evil.example", 400)],
)  # fmt: skip
def test_only_known_names_are_answered(world, host, status):
    hosts = ["localhost", "127.0.0.1", "::1"]
    with make_client(world, hosts=hosts) as client:
        assert client.get("/health", headers={"host": host}).status_code == status


def test_a_page_of_another_site_may_not_ask(client):
    headers = {"sec-fetch-site": "cross-site"}
    response = client.post("/search", files={"words": (None, "x")}, headers=headers)
    assert response.status_code == 403


def test_an_index_without_regions_is_searched_by_whole_images(world):
    bare = replace(world.index, regions=None, region_vectors=None, region_failures=None)
    app = create_app(bare, world.encoder, world.segmenter)
    with TestClient(app) as client:
        answer = search(client, image_id=world.ids[5], prompts=[BOX])
        assert answer["target"] == "images"
        assert "without regions" in refuse(client, 422, words="x", target="regions")
        assert "without regions" in refuse(client, 422, words="x", beta=1)


# Pages


def test_nothing_on_the_pages_comes_from_another_host(client):
    for page in ("/", "/docs", *(f"/static/{name}" for name in read_files())):
        response = client.get(page)
        assert response.status_code == 200
        links = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", response.text)
        assert set(links) <= {"http://www.w3.org"}, page  # the name of SVG, which nobody loads
        assert response.headers["content-security-policy"].startswith("default-src 'self'; ")


def test_headers_stand_on_refusals_too(client):
    for response in (client.get("/nowhere"), client.delete("/search"), post(client, "/search")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert isinstance(response.json()["detail"], str)


def test_the_page_has_the_very_picker_of_the_notebooks(client):
    for name in SHARED:
        assert client.get(f"/static/{name}").content == (WIDGETS / name).read_bytes()


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "app.py", ""])
def test_only_the_files_of_the_page_are_served(client, name):
    assert client.get(f"/static/{name}").status_code == 404


def test_the_files_of_the_page_are_packaged():
    assert {path.name for path in STATIC.iterdir()} <= set(read_files())


# Health, log, end


def test_health_counts(world):
    with make_client(world) as client:
        search(client, words="a star")
        refuse(client, 422)
        client.get("/nowhere")
        health = client.get("/health").json()
    assert health["requests"] == {"POST /search": 2, "other": 1}
    assert health["answers"] == {"2xx": 1, "4xx": 2}
    assert (health["images"], health["regions"]) == (COUNT, len(world.index.regions))
    assert health["batches"]["texts"] == {"calls": 1, "items": 1}


def test_the_log_has_a_line_a_request_without_what_was_looked_for(client, caplog):
    with caplog.at_level(logging.INFO, "regionlab.service"):
        search(client, words="secret words")
        client.get("/image/a%0ab?size=64")
    first, second = caplog.messages
    assert re.fullmatch(r"POST /search 200 \d+ ms \d+ B", first)
    assert re.fullmatch(r"GET /image/a%0ab 404 \d+ ms \d+ B", second)


def test_a_fault_is_answered_without_its_inside(world, monkeypatch):
    app = create_app(world.index, world.encoder, world.segmenter)
    monkeypatch.setattr(app.state.engine, "encode_words", None)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = post(client, "/search", words="a star")
        assert response.status_code == 500
        assert response.json() == {"detail": "the service failed at this request"}
        assert client.get("/health").json()["answers"] == {"5xx": 1}


def test_the_end_lets_no_thread_behind(world):
    app = create_app(world.index, world.encoder, world.segmenter)
    with TestClient(app) as client:
        search(client, words="a star")
    assert app.state.engine.stopping
    with pytest.raises(RuntimeError, match="after shutdown"):
        app.state.engine._clip.submit(print)
