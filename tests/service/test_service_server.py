"""Connections: what is silent, endless or never read is closed, and others do not notice."""

import socket
import time
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from regionlab.service.limits import Limits, LimitsMiddleware
from regionlab.service.server import MAX_HEADERS
from service_world import serve

PATIENCE = 30
LIMITS = Limits(header_seconds=0.5, idle_seconds=0.5, seconds=5, connections=40, waiting=10)
FORM = b"Host: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"


@pytest.fixture(scope="module")
def service():
    app = FastAPI()
    app.state.limits = LIMITS

    @app.post("/search")
    async def count(request: Request):
        return len(await request.body())

    @app.get("/image/{size}")
    def send(size: int):
        return Response(bytes(size))

    app.add_middleware(LimitsMiddleware, limits=LIMITS)
    with serve(app) as service:
        yield service


@pytest.fixture(autouse=True)
def others(service):
    """Whatever a test does, the next one is answered."""
    yield
    assert httpx.get(f"{service.url}/image/3", timeout=PATIENCE).content == bytes(3)


def connect(service, stack, data=b""):
    address = (service.host, service.port)
    connection = stack.enter_context(socket.create_connection(address, PATIENCE))
    connection.sendall(data)
    return connection


def wait_for_end(connection):
    """Read until the other side closes; return what came."""
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize(
    "data", [b"", b"GET /image/3 HTTP/1.1\r\nHo", b"GET /image/3 HTTP/1.1\r\n"]
)
def test_headers_that_do_not_come_are_not_waited_for(service, data):
    with ExitStack() as stack:
        started = time.monotonic()
        assert wait_for_end(connect(service, stack, data)) == b""
        assert 0.4 < time.monotonic() - started < 5


def test_headers_that_come_drop_by_drop_have_the_same_deadline(service):
    with ExitStack() as stack:
        connection = connect(service, stack, b"GET /image/3 HTTP/1.1\r\n")
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 10:
                connection.sendall(b"a: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() - started < 5


def test_the_second_request_of_a_connection_has_a_deadline_too(service):
    with ExitStack() as stack:
        connection = connect(service, stack, b"GET /image/3 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /image")
        started = time.monotonic()
        wait_for_end(connection)
        assert time.monotonic() - started < 5


def test_a_body_that_stops_is_answered_408(service):
    with ExitStack() as stack:
        data = b"POST /search HTTP/1.1\r\n" + FORM + b"Content-Length: 100\r\n\r\n--x\r"
        answer = connect(service, stack, data).recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"nothing has come for 0.5 seconds" in answer


def test_many_bodies_that_stop_keep_nobody_from_being_answered(service):
    with ExitStack() as stack:
        for _ in range(3 * LIMITS.waiting):
            data = b"POST /search HTTP/1.1\r\n" + FORM + b"Content-Length: 100\r\n\r\n--x\r"
            connect(service, stack, data)
        answer = httpx.post(f"{service.url}/search", files={"a": b"b"}, timeout=PATIENCE)
        assert answer.status_code == 200


def test_with_too_many_connections_the_silent_ones_are_closed(service):
    with ExitStack() as stack:
        first = connect(service, stack)
        for _ in range(3 * LIMITS.connections):
            connect(service, stack)
            answer = httpx.get(f"{service.url}/image/3", timeout=PATIENCE)
            assert answer.status_code == 200
        assert wait_for_end(first) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET /image/3 HTTP/1.1\r\nHost: x\r\na: " + b"b" * 4 * MAX_HEADERS,
        b"GET /image/3 HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200,
        b"GET /" + b"a" * 4 * MAX_HEADERS,
        b"POST /search HTTP/1.1\r\n" + FORM + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 5000,
        b"POST /search HTTP/1.1\r\n" + FORM + b"Transfer-Encoding: chunked\r\n\r\n0\r\na: "
        + b"b" * 4 * MAX_HEADERS,
    ],
    ids=["a long header", "many headers", "a long path", "crumbs", "a long trailer"],
)  # fmt: skip
def test_what_is_no_body_is_short(service, data):
    with ExitStack() as stack:
        connection = connect(service, stack)
        try:
            connection.sendall(data)
        except OSError:
            return
        started = time.monotonic()
        assert wait_for_end(connection)[:12] in (b"", b"HTTP/1.1 400")
        assert time.monotonic() - started < 3


def test_a_body_in_chunks_of_a_usual_size_is_taken(service):
    body = b"--x\r\n" + b"a" * 300_000 + b"\r\n--x--"
    chunks = (body[i : i + 500] for i in range(0, len(body), 500))
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{service.url}/search", content=chunks, headers=headers, timeout=PATIENCE)
    assert (answer.status_code, answer.json()) == (200, len(body))


def test_an_answer_that_nobody_reads_is_not_kept_for_ever(service, monkeypatch):
    monkeypatch.setattr("regionlab.service.server.WRITING", 0.5)
    monkeypatch.setattr("regionlab.service.server.KEEP_ALIVE", 0.5)
    with ExitStack() as stack:
        request = b"GET /image/60000000 HTTP/1.1\r\nHost: x\r\n\r\n"
        connection = connect(service, stack, request)
        time.sleep(3)
        assert len(wait_for_end(connection)) < 60_000_000


def test_many_requests_before_the_first_answer_are_refused(service):
    with ExitStack() as stack:
        request = b"GET /image/3 HTTP/1.1\r\nHost: x\r\n\r\n"
        answers = wait_for_end(connect(service, stack, request * 100))
        assert answers.count(b"HTTP/1.1 200") < 50


def test_one_visitor_s_requests_leave_places_to_others():
    guard = LimitsMiddleware(None, LIMITS)
    client, other = ("10.0.0.1", "ann"), ("10.0.0.1", "bob")
    guard.busy = guard.shares[client] = LIMITS.waiting // 2
    assert guard._is_full(client)
    assert not guard._is_full(other)
