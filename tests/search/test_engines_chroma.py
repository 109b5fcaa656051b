"""Chroma in a folder and behind a real server: the same answers, and nothing lost on the way."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.search import chroma as engine_chroma
from regionlab.search import engine as engine_base
from regionlab.search.engine import ExactEngine
from regionlab.search.engines import build_engine, open_engine
from regionlab.search.exact import EngineError

N, D = 10_000, 24


def clustered(seed, n, d=D):
    centres = np.random.default_rng(0).normal(0.5, 1, (100, d))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 100, n)] + rng.normal(0, 0.5, (n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


GALLERY, QUERIES = clustered(1, N), clustered(2, 50)
TABLE = pd.DataFrame({
    "label": np.array(["cat", "dog", "owl", None], object)[np.arange(N) % 4],
    "width": np.arange(N) % 640,
    "quality": np.where(np.arange(N) % 5, np.arange(N) / N, np.nan),
    "boxes": [[1, 2]] * N,
})  # fmt: skip
EXACT = ExactEngine(GALLERY, table=TABLE)
SMALL = GALLERY[:300]


class Server:
    """`chroma run` on a free port of this machine; the folder stays when it dies."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name = f"chroma:127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        chroma = Path(sys.executable).with_name("chroma")
        command = [chroma, "run", "--path", self.folder, "--host", "127.0.0.1", "--port"]
        with open(f"{self.folder}.log", "a") as log:
            self.process = subprocess.Popen(
                [*command, str(self.port)], stdout=log, stderr=log, cwd=self.folder.parent,
                env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
            )  # fmt: skip
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, Path(f"{self.folder}.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the server did not answer within a minute")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "db").start()
    yield server
    server.kill()


@pytest.fixture(params=["folder", "server"])
def place(request, tmp_path):
    """Name and folder of both kinds, the folder empty."""
    if request.param == "folder":
        return "chroma", tmp_path
    return request.getfixturevalue("server").name, None


@pytest.fixture(scope="module")
def engines(server, tmp_path_factory):
    """All 10,000 vectors in both kinds and in FAISS."""
    folder = tmp_path_factory.mktemp("engines")
    names = {"folder": "chroma", "server": server.name, "faiss": "faiss:Flat"}
    return {
        kind: build_engine(name, GALLERY, folder=folder, table=TABLE)
        for kind, name in names.items()
    }


# The same answers


def test_all_engines_return_the_same_rows_and_scores(engines):
    expected = EXACT.search(QUERIES, 10)
    for engine in engines.values():
        for a, b in zip(engine.search(QUERIES, 10), expected, strict=True):
            np.testing.assert_array_equal(a, b)


WHERES = [
    "label == 'owl'",
    "label != 'owl'",
    "label in ['cat', 'dog']",
    "label not in ['cat', 'dog']",
    "width >= 600",
    "width < 3",
    "quality > 0.5",
    "quality <= 0.001",
    "label == 'cat' and (width == 0 or width > 500)",
    "label == 'cow'",
]


@pytest.mark.parametrize("kind", ["folder", "server", "faiss"])
@pytest.mark.parametrize("where", WHERES, ids=str)
def test_filters_and_exclusions_are_those_of_the_exact_engine(engines, kind, where):
    exclude = np.where(np.arange(20) % 3, np.arange(20), -1)
    for k in (1, 10):
        found, expected = (
            engine.search(GALLERY[:20], k, exclude=exclude, where=where)
            for engine in (engines[kind], EXACT)
        )
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_filters_of_many_rows_are_complete_too(engines, where, monkeypatch):
    monkeypatch.setattr(engine_base, "FEW", 0)  # so that Chroma is asked, then all rows
    for a, b in zip(
        engines["folder"].search(GALLERY[:5], 40, where=where),
        EXACT.search(GALLERY[:5], 40, where=where),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_many_copies_are_all_found(tmp_path):
    copies = np.repeat(GALLERY[[0, 700, 1400]], 100, axis=0)
    engine = build_engine("chroma", copies, folder=tmp_path)
    exclude = np.array([7])
    rows, scores = engine.search(copies[:1], 150, exclude=exclude)
    assert (rows >= 0).all() and 7 not in rows[0]
    expected = ExactEngine(copies).search(copies[:1], 150, exclude=exclude)[1]
    np.testing.assert_array_equal(scores, expected)


def test_a_row_that_is_not_finite_is_named_before_it_is_sent(tmp_path):
    broken = SMALL.copy()
    broken[17, 3] = np.nan
    with pytest.raises(EngineError, match="row 17 of the vectors is not finite"):
        build_engine("chroma", broken, folder=tmp_path)


def test_a_number_too_large_for_chroma_is_not_sent_and_still_filters(tmp_path):
    table = pd.DataFrame({"n": np.array([2**70, 5] * 150, object)})
    engine = build_engine("chroma", SMALL, folder=tmp_path, table=table)
    assert engine.search(SMALL[:1], 300, where=f"n == {2**70}")[0][0, :150].min() >= 0
    kept = engine.collection.get(ids=["0", "1"], include=["metadatas"])["metadatas"]
    assert kept == [None, {"n": 5}]


@pytest.mark.parametrize("kind", ["folder", "server"])
def test_a_misspelt_column_is_named(engines, kind):
    with pytest.raises(ValueError, match="no column 'labl' to filter by; known: label, width"):
        engines[kind].search(QUERIES, 3, where="labl == 'cat'")


def test_all_of_a_small_gallery_can_be_asked_for(place):
    name, folder = place
    engine = build_engine(name, SMALL, folder=folder)
    rows, scores = engine.search(QUERIES, 300, exclude=np.arange(50))
    expected_rows, expected_scores = ExactEngine(SMALL).search(QUERIES, 300, exclude=np.arange(50))
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


def test_vectors_are_kept_by_their_ids_with_their_table(place):
    name, folder = place
    ids = [f"image-{i}" for i in range(300)]
    engine = build_engine(name, SMALL, folder=folder, table=TABLE[:300], ids=ids)
    kept = engine.collection.get(ids=["image-6", "image-5"], include=["metadatas", "embeddings"])
    found = dict(zip(kept["ids"], kept["metadatas"], strict=True))
    # What is missing or no text, number or truth is not kept.
    assert found["image-6"] == {"label": "owl", "width": 6, "quality": 6 / N}
    assert found["image-5"] == {"label": "dog", "width": 5}
    where = dict(zip(kept["ids"], kept["embeddings"], strict=True))
    np.testing.assert_allclose(where["image-6"], SMALL[6], atol=1e-6)


# Adding


@pytest.fixture
def upserts(monkeypatch):
    """How many vectors each call to Chroma sent."""
    from chromadb.api.models.Collection import Collection

    sizes, upsert = [], Collection.upsert

    def record(self, ids, **arguments):
        sizes.append(len(ids))
        upsert(self, ids, **arguments)

    monkeypatch.setattr(Collection, "upsert", record)
    return sizes


def test_vectors_are_sent_in_chunks_and_only_once(place, upserts, monkeypatch):
    name, folder = place
    monkeypatch.setattr(engine_chroma, "CHUNK", 130)
    for _ in range(2):
        build_engine(f"{name}?collection=chunks", SMALL, folder=folder)
        assert upserts == [130, 130, 40]


def test_chunks_stay_under_the_limit_of_the_server(place, upserts, monkeypatch):
    from chromadb.api.client import Client

    name, folder = place
    monkeypatch.setattr(engine_chroma, "CHUNK", 10**9)
    monkeypatch.setattr(Client, "get_max_batch_size", lambda self: 70)
    build_engine(f"{name}?collection=limit", SMALL, folder=folder)
    assert upserts == [70, 70, 70, 70, 20]


def test_what_is_missing_is_added(place, upserts):
    name, folder = place
    engine = build_engine(f"{name}?collection=holes", SMALL, folder=folder)
    engine.collection.delete(ids=["7", "123", "299"])
    with pytest.raises(EngineError, match="holds 297 of 300 vectors: build it again"):
        open_engine(f"{name}?collection=holes", SMALL, folder=folder)
    engine = build_engine(f"{name}?collection=holes", SMALL, folder=folder)
    assert upserts == [300, 3]
    assert (engine.search(SMALL[[7, 123, 299]], 1)[0].ravel() == [7, 123, 299]).all()


class Deadly(np.ndarray):
    """Vectors whose second chunk is the end of a server."""

    def __getitem__(self, key):
        if isinstance(key, list):
            self.chunks += 1
            if self.chunks == 2:
                self.server.kill()
        return super().__getitem__(key)


def test_a_server_that_dies_in_the_middle_loses_nothing(tmp_path, upserts, monkeypatch):
    server = Server(tmp_path / "db").start()
    monkeypatch.setattr(engine_chroma, "CHUNK", 100)
    deadly = SMALL.view(Deadly)
    deadly.chunks, deadly.server = 0, server
    with pytest.raises(EngineError, match=f"127.0.0.1:{server.port}: cannot .* is kept, and buil"):
        build_engine(server.name, deadly)
    with pytest.raises(EngineError, match=f"see that it runs: chroma run .* --port {server.port}"):
        build_engine(server.name, SMALL)
    server.start()
    try:
        with pytest.raises(EngineError, match="holds 100 of 300 vectors: build it again"):
            open_engine(server.name, SMALL)
        engine = build_engine(server.name, SMALL)
        assert upserts == [100, 100, 100, 100]  # the second was refused
        expected = ExactEngine(SMALL).search(QUERIES, 10)
        np.testing.assert_array_equal(engine.search(QUERIES, 10)[0], expected[0])
        server.kill()
        with pytest.raises(EngineError, match="cannot search: "):
            engine.search(QUERIES, 10)
    finally:
        server.kill()


# What is refused


def test_a_server_that_is_down_is_named(tmp_path):
    name = Server(tmp_path).name
    for make in (build_engine, open_engine):
        with pytest.raises(EngineError, match=f"the Chroma server {name[7:]}: cannot connect: "):
            make(name, SMALL)


@pytest.mark.parametrize("name", ["chroma:8000", "chroma:host:", "chroma:host:http", "chroma:h:0",
                                  "chroma:h:65536", "chroma::8000"])  # fmt: skip
def test_an_address_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="a server is chroma:<host>:<port>, got "):
        build_engine(name, SMALL)


@pytest.mark.parametrize("option", ["nprobe=3", "ef_search=0", "ef_search=many"])
def test_options_that_it_has_not_are_refused(option, tmp_path):
    with pytest.raises(ValueError, match="known: collection, ef_search|must be a whole number"):
        build_engine(f"chroma?{option}", SMALL, folder=tmp_path)


def test_a_collection_of_other_vectors_is_refused_and_kept(place):
    name, folder = place
    name = f"{name}?collection=other"
    build_engine(name, SMALL, folder=folder)
    for make in (build_engine, open_engine):
        with pytest.raises(EngineError, match=f"has width {D}, these vectors ask for 8: name anot"):
            make(name, clustered(3, 300, 8), folder=folder)
        with pytest.raises(EngineError, match="has fingerprint .*: name another by .collection="):
            make(name, -SMALL, folder=folder)
        with pytest.raises(EngineError, match="has ef_search 400, these vectors ask for 30"):
            make(f"{name}&ef_search=30", SMALL, folder=folder)
    assert open_engine(name, SMALL, folder=folder).collection.count() == 300


@pytest.mark.parametrize("make", [build_engine, open_engine])
def test_an_l2_collection_is_refused(server, make):
    import chromadb
    from chromadb.config import Settings

    client = chromadb.HttpClient(
        "127.0.0.1", server.port, settings=Settings(anonymized_telemetry=False)
    )
    client.get_or_create_collection("theirs", embedding_function=None)
    with pytest.raises(EngineError, match="has space l2, these vectors ask for cosine"):
        make(f"{server.name}?collection=theirs", SMALL)


def test_a_collection_name_that_chroma_refuses_comes_with_its_reason(place):
    name, folder = place
    with pytest.raises(EngineError, match="cannot open: .*name"):
        build_engine(f"{name}?collection=a", SMALL, folder=folder)


def test_what_was_never_built_is_named(server, tmp_path):
    with pytest.raises(EngineError, match="no engine chroma at .*: build it"):
        open_engine("chroma", SMALL, folder=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EngineError, match="no collection regionlab-.* of these vectors: build it"):
        open_engine(server.name, clustered(9, 10))


@pytest.mark.parametrize("ids", [["a"] * 300, ["a", "b"]])
def test_ids_must_tell_rows_apart(ids, tmp_path):
    with pytest.raises(ValueError, match=f"{len(set(ids))} different ids for 300 vectors"):
        build_engine("chroma", SMALL, folder=tmp_path, ids=ids)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot open: .*Not a directory.*see that it can be wri"):
        build_engine("chroma", SMALL, folder=tmp_path / "file")


def test_a_read_only_folder_is_refused(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # may write anywhere; so be nobody meanwhile
        os.seteuid(65534)
    try:
        with pytest.raises(EngineError, match="cannot open: .*Permission denied"):
            build_engine("chroma", SMALL, folder=tmp_path)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)


# Older vectors, newer tables


def test_older_vectors_of_ours_are_deleted_and_others_kept(tmp_path):
    build_engine("chroma?collection=mine", SMALL, folder=tmp_path)
    build_engine("chroma", SMALL, folder=tmp_path)
    engine = build_engine("chroma", -SMALL, folder=tmp_path)
    names = {collection.name for collection in engine.collection._client.list_collections()}
    assert names == {"mine", engine.collection.name}
    with pytest.raises(EngineError, match="no collection"):
        open_engine("chroma", SMALL, folder=tmp_path)


def test_a_changed_table_is_another_collection(tmp_path):
    table = TABLE[:300].copy()
    build_engine("chroma", SMALL, folder=tmp_path, table=table)
    table.loc[0, "label"] = "cow"
    with pytest.raises(EngineError, match="no collection"):
        open_engine("chroma", SMALL, folder=tmp_path, table=table)
    engine = build_engine("chroma", SMALL, folder=tmp_path, table=table)
    assert engine.search(QUERIES[:1], 2, where="label == 'cow'")[0].tolist() == [[0, -1]]


def test_a_folder_that_was_deleted_is_built_again_in_the_same_process(tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    for _ in range(3):
        engine = build_engine("chroma", vectors, folder=tmp_path / "engines")
        rows, _ = engine.search(vectors[:1], 1)
        assert rows.tolist() == [[0]]
        shutil.rmtree(tmp_path / "engines")
