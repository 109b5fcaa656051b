"""What is refused at the door of the service, by headers and by the form's own words."""

import encodings.aliases
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fastapi import HTTPException, Request
from starlette.datastructures import Headers

from regionlab.service import limits as headers
from regionlab.service.forms import MAX_FIELD, MAX_PARTS, read_form
from regionlab.service.limits import Limits, find_fault, keep_own_cookie, name_visitor

HOSTS = ("localhost", "127.0.0.1", "::1", "search.test")
FORM = "multipart/form-data; boundary=x"
CODECS = sorted({*encodings.aliases.aliases, *encodings.aliases.aliases.values()})


def check(method="POST", **changed):
    """Return the status that a request is refused with; lists are several headers of a name."""
    said = {"host": "127.0.0.1", "content-type": FORM, "content-length": "10"} | {
        name.replace("_", "-"): value for name, value in changed.items()
    }
    raw = [
        (name.encode(), one.encode("latin-1"))
        for name, value in said.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    ]
    fault = find_fault(method, Headers(raw=raw), Limits(), HOSTS)
    return fault and fault[0]


# Forms are in UTF-8, whoever says what


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8", "us-ascii"])
def test_forms_in_utf_8_are_taken(charset):
    assert check(content_type=f"{FORM}; charset={charset}") is None
    assert check(content_type=f"multipart/form-data; charset={charset}; boundary=x") is None


def test_no_other_codec_of_python_is_used():
    others = [name for name in CODECS if name.replace("_", "-") not in ("utf-8", "utf8", "ascii")]
    others = [name for name in others if name != "us_ascii"]
    assert len(others) > 300
    for name in others:
        for spelled in (name, name.upper(), name.replace("_", "-"), f'"{name}"'):
            if spelled.strip('"').lower() in ("utf-8", "utf8", "us-ascii", "ascii"):
                continue
            assert check(content_type=f"{FORM}; charset={spelled}") == 415, spelled


@pytest.mark.parametrize(
    "content_type",
    [
        f"{FORM}; charset*=utf-8''punycode",
        f"{FORM}; charset*0=puny; charset*1=code",
        f"{FORM}; charset=utf-8; charset=punycode",
        f"{FORM}; Charset=punycode",
        f"{FORM};charset =punycode",
        f"{FORM}; charset=",
        f"{FORM}; charset=utf-8 punycode",
        f"{FORM}; encoding=punycode",
        f'{FORM}; charset="puny\\code"',
        f"{FORM}; boundary=y",
        f"{FORM}; charset",
        f"{FORM};;charset=punycode",
        "multipart/form-data; boundary*=utf-8''x",
        "multipart/mixed; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json",
        "text/plain",
        "",
        None,
        [FORM, f"{FORM}; charset=punycode"],
    ],
)
def test_what_is_no_plain_form_is_refused(content_type):
    assert check(content_type=content_type) == 415


@pytest.mark.parametrize("boundary", ["", '""', "x" * 71, "x" * 10_000, '"x "', "é"])
def test_a_boundary_has_1_to_70_characters(boundary):
    assert check(content_type=f"multipart/form-data; boundary={boundary}") in (400, 415)


def test_compressed_bodies_are_refused():
    assert check(content_encoding="gzip") == 415
    assert check(transfer_encoding="gzip, chunked", content_length=None) == 415
    assert check(transfer_encoding="chunked", content_length=None) is None


def test_an_empty_request_needs_no_type():
    assert check(content_type=None, content_length="0") is None


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "²", str(2**40), ["1", "2"]])
def test_a_length_that_is_none_or_too_large_is_refused(length):
    assert check(content_length=length) == 413


# Who asks


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.com", "evil.com@127.0.0.1", "127.0.0.1/evil", "127.0.0.1:80:80",
        "127.0.0.1:", "127.0.0.1 evil.com", "127.0.0.1?x", "127.0.0.1#x", "127.0.0.1,evil.com",
        "localhost.evil.com", "[::1", "user:pw@localhost", "http://localhost", "localhost\\evil",
        "127.0.0.1:999999", ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "evil.com"],
    ],
)  # fmt: skip
def test_one_well_formed_host_of_ours_is_needed(host):
    assert check(host=host) == 400
    assert check("GET", host=host) == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_our_own_names_are_answered(host):
    assert check(host=host) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://search.test", "search.test"),
        ("http://search.test", "search.test:80"),
        ("https://search.test", "search.test"),  # HTTPS ends at the server in front
        ("https://SEARCH.test:443", "search.test"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_our_own_pages_may_ask(origin, host):
    assert check(origin=origin, host=host, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://evil.com", "http://127.0.0.1:9009", "http://localhost:8000",
        "http://127.0.0.1", "https://127.0.0.1", "http://127.0.0.1:8000.evil.com", "file://",
        "http://127.0.0.1:8000@evil.com", "http://evil.com/127.0.0.1:8000", "127.0.0.1:8000",
        "chrome-extension://127.0.0.1:8000", ["http://127.0.0.1:8000", "http://evil.com"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "GET"])
def test_pages_of_other_origins_may_not_ask(method, origin):
    assert check(method, origin=origin, host="127.0.0.1:8000") == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "other", ["same-origin", "same-site"]])
def test_other_sites_may_neither_post_nor_show_what_costs_work(site):
    assert check(sec_fetch_site=site) == 403
    assert check(sec_fetch_site=site, sec_fetch_mode="navigate") == 403
    image = {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
    assert check("GET", sec_fetch_site=site, **image) == 403
    frame = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
    assert check("GET", sec_fetch_site=site, **frame) == 403


def test_a_link_to_our_page_may_be_followed_from_anywhere():
    followed = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert check("GET", sec_fetch_site="cross-site", **followed) is None
    assert check("GET", sec_fetch_site="none", **followed) is None


# Cookies

NAME = "a-name_of_24_characters0"


@pytest.mark.parametrize(
    ("cookies", "kept"),
    [
        ([], None),
        ([f"visitor={NAME}"], NAME),
        (["a=b", f"c=d; visitor={NAME} ; e"], NAME),
        ([f"other_visitor={NAME}"], None),
        ([f'visitor="{NAME}"'], None),
        ([f"visitor={NAME}!"], None),
        (['a="' + "\\" * 32_000 + '"'], None),
        ([";" * 32_000 + f"visitor={NAME}"], NAME),
    ],
)
def test_no_cookie_but_ours_is_parsed(cookies, kept):
    others = [(b"host", b"localhost"), (b"accept", b"*/*")]
    scope = {"type": "http", "headers": others + [(b"cookie", c.encode()) for c in cookies]}
    keep_own_cookie(scope)
    assert scope["headers"] == others + ([(b"cookie", f"visitor={kept}".encode())] if kept else [])
    assert name_visitor(Request(scope)) == (kept or "")


# The form itself


def part(value=b"a star", *, name=b'"words"', more=b""):
    return b"--x\r\nContent-Disposition: form-data; name=" + name + more + b"\r\n\r\n" + value


def read(*parts):
    return read_form(b"\r\n".join([*parts, b"--x--\r\n"]), b"x").multi_items()


def refuse(*parts, end=b"--x--\r\n"):
    with pytest.raises(HTTPException) as error:
        read_form(b"\r\n".join([*parts, end]), b"x")
    return error.value.status_code


def test_fields_and_files_come_as_they_were_sent():
    file = part(b"\r\n--y\r\n\xff", name=b'"image"', more='; filename="ü.jpg"'.encode())
    (_, words), (name, image) = read(part("grün".encode()), file)
    assert (words, name, image.filename) == ("grün", "image", "ü.jpg")
    assert image.file.read() == b"\r\n--y\r\n\xff"
    assert image.size == 8


def test_a_field_comes_several_times():
    assert read(*[part(b"%d" % i) for i in range(3)]) == [("words", str(i)) for i in range(3)]


def test_text_that_is_not_utf_8_is_refused_not_guessed():
    assert refuse(part(b"\xff\xfe")) == 400
    assert refuse(part(name=b'"w\xff"')) == 400


@pytest.mark.parametrize(
    "more",
    [
        b"\r\nContent-Type: text/plain; charset=punycode",
        b"\r\nContent-Type: text/plain; charset*=utf-8''punycode",
        b"\r\ncontent-type:text/plain;charset=utf-7",
        b"\r\nContent-Transfer-Encoding: base64",
        b"\r\nContent-Transfer-Encoding: quoted-printable",
        b"\r\nContent-Encoding: gzip",
        b"; name*=punycode''words",
        b"; filename*=punycode''a.jpg",
        b"; filename*0=a; filename*1=b",
    ],
)
def test_no_part_names_an_encoding_of_its_own(more):
    assert refuse(part(more=more)) == 415


def test_the_form_s_own_charset_field_is_utf_8_or_refused():
    assert refuse(part(b"punycode", name=b"_charset_")) == 415
    assert read(part(b"UTF-8", name=b"_charset_"), part()) == [("words", "a star")]


def test_a_star_in_a_file_s_name_is_no_encoding():
    ((_, image),) = read(part(name=b'"image"', more=b'; filename="a*=b.jpg"'))
    assert image.filename == "a*=b.jpg"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b'"a\\"b.jpg"', 'a"b.jpg'),
        (b'"a\\"', "a\\"),
        (b'"C:\\pics\\a.jpg"', "C:\\pics\\a.jpg"),
        (b'"a;b=c.jpg"', "a;b=c.jpg"),
        (b'""', ""),
        (b"a.jpg ; Size=3", "a.jpg"),
    ],
)
def test_a_file_s_name_may_hold_quotes_backslashes_and_semicolons(sent, name):
    ((_, image),) = read(part(name=b'"image"', more=b"; FileName = " + sent))
    assert image.filename == name


@pytest.mark.parametrize("more", [b"; filename", b'; filename="a', b"; name=b", b";;", b'; a="b"c'])
def test_a_disposition_that_is_not_well_formed_is_refused(more):
    assert refuse(part(more=more)) == 400


@pytest.mark.parametrize(
    "more", [b'; q="' + b'\\"' * 950, b"; q=" + b'"\\' * 950, b";" * 1900, b"; q=" + b"\\" * 1900]
)
def test_no_header_of_a_part_takes_longer_than_its_bytes(more):
    body = b"\r\n".join([*[part(more=more)] * MAX_PARTS, b"--x--"])
    began = time.process_time()
    with suppress(HTTPException):
        read_form(body, b"x")
    assert time.process_time() - began < 1  # once 40 s


def test_more_than_a_form_can_need_is_refused():
    assert refuse(part(more=b"\r\nX: a" * 8)) == 400
    assert len(read(*[part()] * MAX_PARTS)) == MAX_PARTS
    assert refuse(*[part()] * (MAX_PARTS + 1)) == 400
    assert refuse(part(b"a" * (MAX_FIELD + 1))) == 400
    assert refuse(part(more=b"\r\nX: " + b"a" * 5000)) == 400
    assert refuse(*[part(more=b'; filename="a"')] * 2) == 400


@pytest.mark.parametrize("end", [b"", b"--x", b"--x-", b"--y--"])
def test_a_form_that_is_cut_short_is_refused(end):
    assert refuse(part(), end=end) == 400


def test_the_configuration_of_nginx_has_the_limits_of_the_service():
    path = Path(headers.__file__).parent / "nginx.conf"
    settings = dict(re.findall(r"^\s*(\w+) +([^;#]+);", path.read_text("utf-8"), re.MULTILINE))
    assert settings["client_max_body_size"] == f"{Limits().body_bytes // 2**20}m"
    assert settings["client_header_timeout"] == f"{Limits().header_seconds:g}s"
    assert settings["client_body_timeout"] == f"{Limits().idle_seconds:g}s"
    assert int(settings["proxy_read_timeout"].strip("s")) > Limits().seconds
    assert settings["proxy_request_buffering"] == "on"
