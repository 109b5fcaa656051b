"""What must not bring the service down: schemathesis, bombs, floods, liars and quitters.

Each test ends with a search that is answered: the service goes on.
"""

import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import hypothesis
import psutil
import pytest
import schemathesis
from schemathesis import checks

from regionlab.service.app import create_app
from regionlab.service.limits import Limits
from service_world import HTML_NAME, build_world, post, serve

MIB = 2**20
PATIENCE = 60
EXAMPLES = 20  # of schemathesis, for each operation
BOX = {"kind": "box", "x0": 30, "y0": 30, "x1": 150, "y1": 150}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def app(world):
    return create_app(world.index, world.encoder, world.segmenter)


@pytest.fixture(scope="module")
def service(app):
    with serve(app) as service:
        yield service


@pytest.fixture
def client(service):
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        yield client
        assert post(client, "/search", words="a star").status_code == 200
        assert "5xx" not in client.get("/health").json()["answers"]


def talk(service, *chunks, pause=0.0):
    """Send bytes as they are; return the answer as far as it comes."""
    with socket.create_connection((service.host, service.port), PATIENCE) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
            time.sleep(pause)
        return connection.recv(65536).decode("latin-1")


def head(length, path="/search", boundary="x"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    ).encode()


def used_memory():
    return psutil.Process().memory_info().rss


# The API's own schema


@pytest.fixture(scope="module")
def api(service):
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


OPERATIONS = [
    ("POST", "/search"),
    ("POST", "/mask"),
    ("GET", "/image/{image_id}"),
    ("GET", "/images"),
    ("GET", "/health"),
]
# All checks but one: what fits the schema need not be answered, as no generator draws pictures.
CHECKS = [c for c in checks.CHECKS.get_all() if c.__name__ != "positive_data_acceptance"]


def test_schemathesis_is_shown_every_operation(api):
    found = [result.ok() for result in api.get_all_operations()]
    assert {(one.method.upper(), one.path) for one in found} == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_api_keeps_to_its_schema_whatever_is_asked(api, client, method, path, mode):
    operation = api[path][method]
    if (method, path) == ("GET", "/health") and mode is schemathesis.GenerationMode.NEGATIVE:
        pytest.skip("nothing can be wrong with it")

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case):
        case.call_and_validate(checks=CHECKS)

    ask()


# Names and paths


@pytest.mark.parametrize(
    "target",
    [
        "/image/../../../../etc/passwd",
        "/image/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/image/..%2f..%2f..%2fetc%2fpasswd",
        "/image/%2Fetc%2Fpasswd",
        "/image//etc/passwd",
        "/image/..\\..\\etc\\passwd",
        "/image/%00",
        "/image/%ff%fe",
        "/static/../app.py",
        "/static/%2e%2e%2fapp.py",
        "/image?path=/etc/passwd",
    ],
)
def test_no_path_leads_out(client, service, target):
    answer = talk(service, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith("HTTP/1.1 404")
    assert "root:" not in answer


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/passwd", "a\x00b.jpg", '"; x="y'])
def test_the_name_of_a_file_that_is_sent_does_not_matter(client, world, name):
    data = world.index.path(3).read_bytes()
    answer = client.post("/search", files={"image": (name, data)})
    assert answer.status_code == 200
    assert answer.json()["image_id"].startswith("upload-")


def test_html_in_words_and_names_is_passed_on_as_json(client):
    words = "<script>alert(1)</script>"
    answer = post(client, "/search", words=words, k=100)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["parts"][0]["label"] == words
    assert HTML_NAME in [result["name"] for result in answer.json()["results"]]


# Floods


def make_bomb(side):
    """Return a PNG of side x side white pixels in 8 bits of gray, a few kilobytes large."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")

    size = side.to_bytes(4, "big")
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * side
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_of_100_megapixels_is_refused_unopened(client):
    bomb = make_bomb(10_000)
    assert len(bomb) < MIB
    before = used_memory()
    answer = post(client, "/search", image=bomb)
    assert answer.status_code == 413
    assert answer.json()["detail"] == (
        "the image is too large: 10000 x 10000 pixels, at most 24,000,000 in all"
    )
    assert used_memory() - before < 50 * MIB


def test_a_bomb_that_pil_would_not_open_is_refused_too(client):
    bomb = bytearray(make_bomb(100))
    bomb[16:24] = 2 * (60_000).to_bytes(4, "big")
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    assert post(client, "/search", image=bytes(bomb)).status_code == 413


def test_many_bombs_just_below_the_limit_are_worked_off_in_bounded_memory(world):
    limits = Limits(pixels=9_000_000, working_bytes=64 * MIB, cache_bytes=64 * MIB)
    app = create_app(world.index, world.encoder, world.segmenter, limits=limits)
    bomb, before = make_bomb(3000), used_memory()  # 27 MB each, unpacked
    most = before

    def ask(service):
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
            return post(client, "/search", image=bomb).status_code

    with serve(app) as service, ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, service) for _ in range(24)]
        while not all(one.done() for one in asked):
            most = max(most, used_memory())
            time.sleep(0.01)
    assert {one.result() for one in asked} == {200}
    assert most - before < 400 * MIB  # all at once they would take 650, and more to unpack


def test_a_body_of_a_gigabyte_is_refused_at_its_announcement(client, service):
    answer = talk(service, head(2**30))
    assert answer.startswith("HTTP/1.1 413")
    assert '"detail":"the request is too large' in answer


def test_a_gigabyte_that_comes_unannounced_is_not_kept(client):
    chunk = bytes(MIB)
    before, most = used_memory(), 0

    def flood():
        nonlocal most
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for i in range(1024):
            most = max(most, used_memory()) if i % 32 == 0 else most
            yield chunk

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/search", content=flood(), headers=headers)
    assert answer.status_code == 413
    assert most - before < 100 * MIB


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "0x10", "ten"])
def test_a_false_length_is_refused(client, service, length):
    assert talk(service, head(length)).split()[1] in ("400", "413")


def test_a_field_of_many_megabytes_is_refused(client):
    assert post(client, "/search", words="x" * (3 * MIB)).status_code == 400


def test_ten_thousand_fields_are_refused(client):
    fields = [("liked", (None, "x"))] * 10_000
    assert client.post("/search", files=fields).status_code == 400


# Nonsense


PART = b'--x\r\nContent-Disposition: form-data; name="words"\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"--x",
        b"--y\r\n\r\n--y--",
        PART,
        PART + b"a star",
        b"--x\r\n\r\nno header\r\n--x--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--",
        b"--x\r\nContent-Disposition\r\n\r\n\r\n--x--",
        PART + b"\xff\xfe\xfd\r\n--x",
        bytes(range(256)) * 40,
    ],
)
def test_malformed_multipart_is_refused(client, body):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/search", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_a_wrong_content_type_is_refused_and_the_right_one_told(client, content_type):
    answer = client.post("/search", content=b'{"a": 1}', headers={"content-type": content_type})
    assert answer.status_code == 415
    assert "send multipart/form-data" in answer.json()["detail"]


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(client, content_type):
    answer = client.post("/search", content=b'{"a": 1}', headers={"content-type": content_type})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "prompts",
    ["{", "null", "3", '"box"', "[null]", "[[]]", "{}", '[{"kind": null}]', "[" * 10_000,
     '{"a":' * 10_000, '[{"kind": "points", "xy": [[NaN, 1]]}]', "[1e999]", "\x00"],
)  # fmt: skip
def test_wrong_json_is_refused(client, world, prompts):
    name = world.ids[0]
    assert post(client, "/search", image_id=name, prompts=prompts).status_code == 422
    assert post(client, "/mask", image_id=name, prompts=prompts).status_code == 422


@pytest.mark.parametrize("k", [-1, 0, 101, 2**63, 10**400, "1e2", "∞", "NaN"])
def test_a_negative_or_huge_k_is_refused(client, k):
    assert post(client, "/search", words="a star", k=k).status_code == 422


def test_damaged_pictures_are_refused(client, world):
    data = world.index.path(3).read_bytes()
    for cut in (1, 10, 100, len(data) // 2, len(data) - 1):
        answer = post(client, "/search", image=data[:cut])
        assert answer.status_code in (200, 422)  # readers forgive a missing end


# Quitters and dawdlers


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_let_go(client, service):
    for _ in range(5):
        with socket.create_connection((service.host, service.port), PATIENCE) as connection:
            connection.sendall(head(100_000) + PART)
    wait_until(lambda: client.get("/health").json()["running"] == 1)


def test_a_client_that_does_not_wait_for_its_answer_is_let_go(client, service, world):
    prompts = json.dumps([{"kind": "text", "words": "a star"}])
    fields = {"image_id": world.ids[7], "prompts": prompts}
    request = client.build_request(
        "POST", "/search", files={k: (None, v) for k, v in fields.items()}
    )
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    with socket.create_connection((service.host, service.port), PATIENCE) as connection:
        top = "POST /search HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        connection.sendall(top.encode() + request.read())
    wait_until(lambda: client.get("/health").json()["running"] == 1)


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE} s"
        time.sleep(0.02)


def test_a_client_that_dawdles_is_given_up(world):
    app = create_app(world.index, world.encoder, world.segmenter, limits=Limits(seconds=0.3))
    with serve(app) as service:
        answer = talk(service, head(1000), pause=0.5)
        assert answer.startswith("HTTP/1.1 408")
        assert '"detail":"not done within 0.3 seconds"' in answer


# Many at once


def test_many_at_once_get_what_one_gets_alone_and_share_batches(service, world):
    words = ["a star", "a red circle", "grass", "a blue arrow"]
    files = [world.index.path(i).read_bytes() for i in range(4)]
    asked = [{"words": w} for w in words] + [{"image": f} for f in files]
    asked += [{"image_id": n, "prompts": json.dumps([BOX])} for n in world.ids[:4]]
    start = threading.Barrier(len(asked))

    def ask(fields, wait=start.wait):
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
            client.get("/")  # a visitor of its own
            wait()
            return post(client, "/search", **fields).json()["results"]

    alone = [ask(fields, wait=lambda: None) for fields in asked]
    before = httpx.get(f"{service.url}/health").json()["batches"]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(ask, asked))
    after = httpx.get(f"{service.url}/health").json()["batches"]
    for one, other in zip(alone, together, strict=True):
        assert [r["image_id"] for r in one] == [r["image_id"] for r in other]
        assert [r["score"] for r in one] == pytest.approx([r["score"] for r in other], abs=1e-4)
    calls = sum(after[n]["calls"] - before[n]["calls"] for n in after)
    items = sum(after[n]["items"] - before[n]["items"] for n in after)
    assert items == len(asked)
    assert calls < items
