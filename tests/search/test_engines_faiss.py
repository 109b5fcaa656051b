"""FAISS engines against exact search; what FAISS refuses; what lies on disk."""

import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from regionlab.search import engine as engine_base
from regionlab.search import engine as engine_files
from regionlab.search import faiss as engine_faiss
from regionlab.search.engine import ExactEngine
from regionlab.search.engines import build_engine, open_engine
from regionlab.search.exact import EngineError
from regionlab.search.faiss import estimate_bytes, list_factories, list_settings, parse_factory

N, D = 2000, 16


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(seed, n, d=D, shift=1.0):
    """Vectors in clusters and, as CLIP's, all on one side of the origin."""
    centres = np.random.default_rng(0).normal(shift, 1, (20, d))
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(0, 20, n)] + rng.normal(0, 0.5, (n, d)))


GALLERY, QUERIES = clustered(1, N), clustered(2, 40)
TABLE = pd.DataFrame({"label": np.array(["cat", "dog", "owl", "yak"])[np.arange(N) % 4]})
EXACT = ExactEngine(GALLERY, table=TABLE)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where engines of `GALLERY` are kept, so that a string is trained once."""
    return tmp_path_factory.mktemp("engines")


def measure_recall(engine, k=10):
    truth = EXACT.search(QUERIES, k)[1][:, -1:]
    return (engine.search(QUERIES, k)[1] >= truth - 1e-6).mean()


# The same answers

FULL = [
    "Flat",
    "IVF32,Flat?nprobe=32",
    "IVF32_HNSW8,Flat?nprobe=32&quantizer_efSearch=64",
    "HNSW32?efSearch=512",
    "SQ8?k_factor=8",
    "IVF32,SQ8?nprobe=32&k_factor=8",
    "IVF32,PQ4x4,RFlat?nprobe=32&k_factor=200",
    "OPQ4,IVF8,PQ4x4,Refine(SQfp16)?nprobe=8&k_factor=200",
    "RR8,Flat?k_factor=200",
    "PCAR8,SQ8,RFlat?k_factor=100",
]


@pytest.mark.parametrize("string", FULL)
def test_an_engine_that_looks_everywhere_is_exact(string, kept):
    engine = build_engine(f"faiss:{string}", GALLERY, folder=kept)
    for found, expected in zip(engine.search(QUERIES, 10), EXACT.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "string", ["IVF32,Flat?nprobe=32", "IVF32,PQ4x4,RFlat?nprobe=32&k_factor=200", "HNSW32"]
)
def test_all_of_a_small_gallery_can_be_asked_for(string, tmp_path):
    engine = build_engine(f"faiss:{string}", GALLERY[:64], folder=tmp_path)
    rows, scores = engine.search(QUERIES, 64)
    assert (np.sort(rows, axis=1) == np.arange(64)).all()
    assert (np.diff(scores) <= 0).all()


def test_equal_vectors_come_in_gallery_order(tmp_path):
    gallery = np.repeat(GALLERY[:100], 3, axis=0)
    engine = build_engine("faiss:HNSW16?efSearch=300", gallery, folder=tmp_path)
    rows, _ = engine.search(gallery[:30:3], 3)
    assert rows.tolist() == [[i, i + 1, i + 2] for i in range(0, 30, 3)]


def test_scores_are_cosines_whatever_the_code(kept):
    engine = build_engine("faiss:PQ4x4", GALLERY, folder=kept)
    rows, scores = engine.search(QUERIES, 5)
    expected = np.einsum("qkd,qd->qk", GALLERY[rows].astype(np.float64), QUERIES)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_more_effort_finds_more(kept):
    for low, high in [
        ("IVF32,Flat?nprobe=1", "IVF32,Flat?nprobe=8"),
        ("IVF32,PQ4x4?nprobe=32", "IVF32,PQ4x4?nprobe=32&k_factor=8"),
        ("IVF32,PQ4x4,RFlat?nprobe=32", "IVF32,PQ4x4,RFlat?nprobe=32&k_factor=8"),
        ("HNSW4?efSearch=10", "HNSW4?efSearch=200"),
    ]:
        few, many = (build_engine(f"faiss:{s}", GALLERY, folder=kept) for s in (low, high))
        assert measure_recall(few) < measure_recall(many)


def test_pca_keeps_inner_products_not_those_about_the_mean(kept):
    # FAISS's own PCA shifts by the mean, even where it drops nothing: another product.
    index = faiss.index_factory(D, f"PCAR{D},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(GALLERY)
    index.add(GALLERY)
    found, truth = index.search(QUERIES, 10)[1], EXACT.search(QUERIES, 10)[0]
    theirs = np.mean([np.isin(a, b).mean() for a, b in zip(found, truth, strict=True)])
    assert theirs < 0.5
    assert measure_recall(build_engine(f"faiss:PCAR{D},Flat", GALLERY, folder=kept)) == 1


# Exclusions and filters


@pytest.mark.parametrize("string", ["Flat", "IVF32,SQ8?nprobe=32&k_factor=8", "HNSW32?efSearch=99"])
@pytest.mark.parametrize("where", [None, "label == 'owl'", "label in ['cat', 'yak']"])
def test_rows_are_left_out_as_by_the_exact_engine(string, where, kept):
    engine = build_engine(f"faiss:{string}", GALLERY, folder=kept, table=TABLE)
    exclude = np.where(np.arange(40) % 3, np.arange(40), -1)
    found, expected = (
        e.search(GALLERY[:40], 5, exclude=exclude, where=where) for e in (engine, EXACT)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_rare_match_is_found_among_many_others(kept):
    table = pd.DataFrame({"rare": np.arange(N) == 7})
    engine = build_engine("faiss:Flat", GALLERY, folder=kept, table=table)
    rows, scores = engine.search(QUERIES, 2, where="rare")
    assert (rows == [7, -1]).all()
    assert (scores[:, 1] == -np.inf).all()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("k", [400, 1000])
def test_what_few_cells_do_not_hold_is_looked_for_everywhere(k, kept):
    engine = build_engine("faiss:IVF32,Flat?nprobe=1", GALLERY, folder=kept, table=TABLE)
    assert_same(engine.search(QUERIES, k), EXACT.search(QUERIES, k))


APPROXIMATE = ["HNSW16", "IVF32,Flat", "IVF32,PQ4x4", "PQ4x4", "SQ4"]


@pytest.mark.parametrize("few", [0, 99999], ids=["by the engine", "at once"])
@pytest.mark.parametrize("string", APPROXIMATE)
def test_all_that_match_a_filter_are_found(string, few, kept, monkeypatch):
    monkeypatch.setattr(engine_base, "FEW", few)
    table = pd.DataFrame({"group": np.minimum(np.arange(N) % 500, 3)})  # 4 and 1,988 rows
    engine = build_engine(f"faiss:{string}", GALLERY, folder=kept, table=table)
    exact = ExactEngine(GALLERY, table=table)
    exclude = np.where(np.arange(40) % 2, np.arange(40), -1)
    rows, scores = found = engine.search(GALLERY[:40], 4, exclude=exclude, where="group == 0")
    assert_same(found, exact.search(GALLERY[:40], 4, exclude=exclude, where="group == 0"))
    assert (rows >= 0).sum(axis=1).tolist() == [4] * 40  # no excluded row is of the group
    rows, _ = engine.search(GALLERY[:4], 4, exclude=np.array([0, 1, 2, 3]), where="group == 0")
    assert (rows >= 0).sum(axis=1).tolist() == [3, 4, 4, 4]


def test_many_copies_are_all_found(tmp_path):
    copies = np.repeat(GALLERY[[0, 700, 1400]], 100, axis=0)
    engine = build_engine("faiss:HNSW32", copies, folder=tmp_path)
    for exclude, most in ((-1, 300), (7, 299)):
        rows, scores = engine.search(copies[:1], 150, exclude=np.array([exclude]))
        assert (rows >= 0).all() and exclude not in rows[0]
        assert (scores[0, :99] == scores[0, 0]).all() and scores[0, 0] == pytest.approx(1)
        rows, _ = engine.search(copies[:1], 300, exclude=np.array([exclude]))
        assert (rows >= 0).sum() == most


def test_what_an_engine_finds_enough_of_is_not_looked_for_again(kept, monkeypatch):
    monkeypatch.setattr(engine_base, "find_exactly", None)
    engine = build_engine("faiss:IVF32,Flat?nprobe=4", GALLERY, folder=kept, table=TABLE)
    rows, _ = engine.search(QUERIES, 5)
    assert (rows >= 0).all()


def test_rows_that_are_not_finite_are_named_when_an_index_is_built(tmp_path):
    for place in (3, 1234):
        broken = GALLERY.copy()
        broken[place, 5] = np.nan
        for string in ("Flat", "IVF32,Flat"):
            with pytest.raises(EngineError, match=f"row {place} of the vectors is not finite"):
                build_engine(f"faiss:{string}", broken, folder=tmp_path)


# What is refused


@pytest.mark.parametrize(
    "string", ["Foo", "IVF,Flat", "flat", " Flat", "IVF16", "RFlat", "NSG1", "Flat,IDMap", "LSH",
               "Flat,Refine(IVF4,Flat)", "IVF8,HNSW16", "IVF8,Flat,", "SQ3", "PQ0", "PCA0,Flat",
               "HNSW-4"],
)  # fmt: skip
def test_a_string_that_is_no_factory_string_is_refused(string, tmp_path):
    with pytest.raises(ValueError, match="is not one of: .*IVF<cells>") as error:
        build_engine(f"faiss:{string}", GALLERY, folder=tmp_path)
    assert repr(string) in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("string", ["HNSW0", "HNSW1", "HNSW3", "HNSW513", "IVF8_HNSW1,Flat"])
def test_links_that_crash_faiss_are_refused(string, tmp_path):
    with pytest.raises(ValueError, match="HNSW takes 4 to 512 links a vector, got"):
        build_engine(f"faiss:{string}", GALLERY, folder=tmp_path)


@pytest.mark.parametrize(
    "string, reason",
    [
        ("PQ7", "multiple of the number of subquantizers"),
        ("PCA99,Flat", "cannot output 99 dimensions"),
        ("PQ8x12", r"Number of training points \(2000\) should be at least .* \(4096\)"),
    ],
)
def test_what_faiss_refuses_comes_with_its_reason(string, reason, tmp_path):
    message = f"FAISS refuses '{string}' for 2000 vectors of 16 dimensions: .*{reason}"
    with pytest.raises(ValueError, match=message):
        build_engine(f"faiss:{string}", GALLERY, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cells", [101, 100_000_000, 99999999999])
def test_fewer_vectors_than_cells_are_refused(cells, tmp_path):
    message = f"'IVF{cells},Flat' asks for {cells} cells, and there are 100 vectors: at most that"
    with pytest.raises(ValueError, match=message):
        build_engine(f"faiss:IVF{cells},Flat", GALLERY[:100], folder=tmp_path)


def test_no_cells_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'IVF0,Flat' asks for 0 cells"):
        build_engine("faiss:IVF0,Flat", GALLERY, folder=tmp_path)


@pytest.mark.parametrize(
    "name, known",
    [
        ("Flat?nprobe=3", "known: k_factor$"),
        ("IVF8,Flat?efSearch=3", "known: k_factor, nprobe$"),
        ("IVF8_HNSW8,Flat?probe=3", "known: k_factor, nprobe, quantizer_efSearch$"),
        ("HNSW8?nprobe=8", "known: k_factor, efSearch$"),
    ],
)
def test_an_unknown_option_is_told_the_known_ones(name, known, tmp_path):
    with pytest.raises(ValueError, match=f"has no option .*{known}"):
        build_engine(f"faiss:{name}", GALLERY, folder=tmp_path)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "99999999999"])
def test_an_option_that_counts_nothing_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match="nprobe of faiss:IVF8,Flat must be a whole number"):
        build_engine(f"faiss:IVF8,Flat?nprobe={value}", GALLERY, folder=tmp_path)


def test_an_index_needs_a_folder():
    with pytest.raises(ValueError, match="faiss:Flat is kept on disk: name a folder"):
        build_engine("faiss:Flat", GALLERY)


# On disk


def test_a_kept_engine_is_opened_with_other_options_and_not_built_again(tmp_path, monkeypatch):
    build_engine("faiss:IVF8,Flat?nprobe=1", GALLERY, folder=tmp_path)
    monkeypatch.setattr(engine_faiss, "_fill", None)
    for make in (open_engine, build_engine):
        engine = make("faiss:IVF8,Flat?nprobe=8", GALLERY, folder=tmp_path)
        assert engine.name == "faiss:IVF8,Flat?nprobe=8"
        assert measure_recall(engine) == 1
    with pytest.raises(TypeError):
        build_engine("faiss:IVF8,Flat", GALLERY, folder=tmp_path, fresh=True)


def test_strings_that_look_alike_as_files_stay_apart(tmp_path):
    a = build_engine("faiss:IVF8,PQ4x4,RFlat", GALLERY, folder=tmp_path)
    b = build_engine("faiss:IVF8,PQ4x4,Refine(Flat)", GALLERY, folder=tmp_path)
    c = build_engine("faiss:IVF8,PQ4x4,Refine(SQ8)", GALLERY, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert a.bytes == b.bytes > c.bytes


def test_an_engine_of_other_vectors_is_refused_or_built_again(tmp_path):
    build_engine("faiss:Flat", GALLERY, folder=tmp_path)
    other = GALLERY.copy()
    other[1234] = unit(-other[1234:1235])
    with pytest.raises(EngineError, match="is of other vectors: build it again"):
        open_engine("faiss:Flat", other, folder=tmp_path)
    engine = build_engine("faiss:Flat", other, folder=tmp_path)
    assert engine.search(other[1234:1235], 1)[0] == 1234
    for vectors in (GALLERY, other[:-1], other[:, :-1]):
        with pytest.raises(EngineError, match="is of other vectors"):
            open_engine("faiss:Flat", vectors, folder=tmp_path)


def test_an_identity_stands_for_the_contents(tmp_path):
    build_engine("faiss:Flat", GALLERY, folder=tmp_path, identity="index 1")
    open_engine("faiss:Flat", GALLERY, folder=tmp_path, identity="index 1")
    with pytest.raises(EngineError, match="is of other vectors"):
        open_engine("faiss:Flat", GALLERY, folder=tmp_path, identity="index 2")
    with pytest.raises(EngineError, match="is of other vectors"):
        open_engine("faiss:Flat", -GALLERY, folder=tmp_path, identity="index 1")


def test_an_engine_that_was_never_built_is_named(tmp_path):
    with pytest.raises(EngineError, match="no engine faiss:Flat at .*: build it"):
        open_engine("faiss:Flat", GALLERY, folder=tmp_path / "none")


def cut(file):
    os.truncate(file, file.stat().st_size - 100)


def scramble(file):
    file.write_bytes(b"x" * file.stat().st_size)


@pytest.mark.parametrize("spoil", [cut, scramble, Path.unlink])
@pytest.mark.parametrize("file", ["index.faiss", "engine.json"])
def test_a_damaged_engine_is_refused_or_built_again(tmp_path, file, spoil):
    build_engine("faiss:IVF8,Flat", GALLERY, folder=tmp_path)
    spoil(next(tmp_path.glob(f"*/{file}")))
    with pytest.raises(EngineError, match="build it( again)?$"):
        open_engine("faiss:IVF8,Flat", GALLERY, folder=tmp_path)
    assert measure_recall(build_engine("faiss:IVF8,Flat?nprobe=8", GALLERY, folder=tmp_path)) == 1


def test_an_index_of_another_gallery_in_the_place_is_refused(tmp_path):
    build_engine("faiss:Flat", GALLERY, folder=tmp_path)
    (file,) = tmp_path.glob("*/index.faiss")
    index = faiss.IndexFlatIP(2 * D)
    index.add(np.ones((N // 2, 2 * D), np.float32))
    faiss.write_index(index, str(file))
    with pytest.raises(EngineError, match="1000 x 32 vectors, not 2000 x 16"):
        open_engine("faiss:Flat", GALLERY, folder=tmp_path)


def test_an_engine_of_another_version_is_refused(tmp_path):
    build_engine("faiss:Flat", GALLERY, folder=tmp_path)
    (file,) = tmp_path.glob("*/engine.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 0}))
    with pytest.raises(EngineError, match="has schema 0, not 1: build it again"):
        open_engine("faiss:Flat", GALLERY, folder=tmp_path)


@contextmanager
def as_somebody():
    """Root may write anywhere; so be nobody meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder(tmp_path):
    """A folder that anybody can reach, whatever pytest's own folders allow."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    return tmp_path


def test_a_read_only_folder_is_refused_and_can_be_read(open_folder):
    build_engine("faiss:IVF8,Flat?nprobe=8", GALLERY, folder=open_folder)
    for path in (*open_folder.rglob("*"), open_folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_somebody():
        with pytest.raises(EngineError, match="cannot be written to .*: Permission denied"):
            build_engine("faiss:Flat", GALLERY, folder=open_folder)
        engine = build_engine("faiss:IVF8,Flat?nprobe=8", GALLERY, folder=open_folder)
        assert measure_recall(engine) == 1
    open_folder.chmod(0o755)


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written to .*: Not a directory"):
        build_engine("faiss:Flat", GALLERY, folder=tmp_path / "file")


def test_a_full_disk_leaves_the_old_engine_whole(tmp_path):
    build_engine("faiss:Flat", GALLERY, folder=tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(EngineError, match="cannot be written to .* is not lost: make room"):
            build_engine("faiss:Flat", GALLERY, folder=tmp_path, fresh=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert measure_recall(open_engine("faiss:Flat", GALLERY, folder=tmp_path)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_second_builder_is_refused(tmp_path):
    place = engine_files.find_place(tmp_path, "faiss:Flat")
    with engine_files.staged_site(place):
        with pytest.raises(EngineError, match="another process is building .*faiss-Flat"):
            build_engine("faiss:Flat", GALLERY, folder=tmp_path)


def test_what_a_killed_builder_left_is_cleared_away(tmp_path):
    place = engine_files.find_place(tmp_path, "faiss:Flat")
    code = (
        "import os, sys, pathlib; from regionlab.search.engine import staged_site\n"
        "with staged_site(pathlib.Path(sys.argv[1])) as site:\n"
        "    (site / 'index.faiss').write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, place])
    assert [path.name for path in tmp_path.iterdir()] == [f".{place.name}.building"]
    build_engine("faiss:Flat", GALLERY, folder=tmp_path)
    assert list(tmp_path.iterdir()) == [place]


# Memory


def test_vectors_are_read_in_pieces_and_training_sees_a_share(tmp_path, monkeypatch):
    """No read of the gallery is larger than a piece, and nothing asks for all of it."""

    class Spy(np.ndarray):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            if isinstance(found, np.ndarray) and found.ndim == 2:
                sizes.append(len(found))
            return found

        def __array__(self, *args, **kwargs):
            raise AssertionError("all of it was asked for")

    sizes = []
    monkeypatch.setattr(engine_faiss, "CHUNK", 300 * D)
    monkeypatch.setattr(engine_faiss, "TRAINING", 500 * D)
    np.save(tmp_path / "vectors.npy", GALLERY)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r").view(Spy)
    engine = build_engine("faiss:IVF8,SQ8", mapped, folder=tmp_path / "engines", identity="x")
    assert engine.index.ntotal == N
    assert max(sizes) <= 1000  # the rows of the fingerprint
    assert 500 in sizes  # training
    assert sizes.count(300) == 6 and 200 in sizes  # 2,000 are 6 times 300, and 200


def test_a_sample_is_as_large_as_it_should_be():
    class Rows:
        shape = (1_000_000, 512)

        def __getitem__(self, rows):
            assert (np.diff(rows) > 0).all()
            return rows

    for cells, expected in [(1, 16_384), (1024, 65_536), (4096, 262_144), (65_536, 524_288)]:
        assert len(engine_faiss._draw_sample(Rows(), cells, seed=0)) == expected
    Rows.shape = (5000, 512)
    assert len(engine_faiss._draw_sample(Rows(), 1024, seed=0)) == 5000


MEMORY = """
import sys
import faiss, numpy as np
from regionlab.search.engines import open_engine
def measure():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) / 1000
vectors = np.load(sys.argv[1], mmap_mode="r")
before = measure()
engine = open_engine(sys.argv[3], vectors, folder=sys.argv[2], identity="x")
engine.search(np.asarray(vectors[:3]), 10)
print(measure() - before, engine.bytes / 1e6)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("string", ["Flat", "IVF8,SQ8", "HNSW8"])
def test_an_opened_engine_is_mapped_not_read(string, tmp_path):
    gallery = clustered(3, 20_000, 256) if string != "HNSW8" else clustered(3, 6000, 1024)
    np.save(tmp_path / "vectors.npy", gallery)
    build_engine(f"faiss:{string}", gallery, folder=tmp_path / "engines", identity="x")
    command = [tmp_path / "vectors.npy", tmp_path / "engines", f"faiss:{string}"]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *command], capture_output=True, text=True, check=True
    )
    taken, size = map(float, done.stdout.split())
    assert size > 5 and taken < 0.3 * size


# Factory strings


@pytest.mark.parametrize(
    "string", ["Flat", "SQ8", "IVF32,Flat", "IVF32,SQ8", "IVF32,PQ4x4,RFlat", "PQ4x4", "HNSW32",
               "IVF32_HNSW8,SQfp16", "OPQ4,IVF8,PQ4x4,Refine(SQfp16)", "RR8,Flat", "HNSW8_SQ4"],
)  # fmt: skip
def test_bytes_are_those_of_the_file(string, kept):
    engine = build_engine(f"faiss:{string}", GALLERY, folder=kept)
    assert estimate_bytes(string, N, D) == pytest.approx(engine.bytes, rel=0.03)


def test_bytes_by_hand():
    million = 10**6
    assert estimate_bytes("Flat", million, 512) == million * 2048
    assert estimate_bytes("SQ8", million, 512) == million * 512
    assert estimate_bytes("HNSW32", million, 512) == million * (2048 + 32 * 8 + 16)
    assert estimate_bytes("IVF4096,Flat", million, 512) == million * 2056 + 4096 * 2048
    assert estimate_bytes("IVF4096,PQ64", million, 512) == million * 72 + (4096 + 256) * 2048


def test_a_string_is_taken_apart():
    factory = parse_factory("OPQ16_64,IVF256_HNSW,PQ16x4fs,Refine(SQfp16)")
    assert (factory.width, factory.cells, factory.cell_links) == (64, 256, 32)
    assert (factory.code, factory.refine, factory.links) == ("PQ16x4fs", "SQfp16", 0)
    factory = parse_factory("HNSW,RFlat")
    assert (factory.links, factory.code, factory.refine, factory.cells) == (32, "Flat", "Flat", 0)


@pytest.mark.parametrize(
    "n, cells",
    [(1000, 128), (10_000, 512), (100_000, 1024), (10**6, 4096), (2 * 10**6, 65536),
     (10**7, 65536), (10**8, 262144), (10**9, 1048576)],
)  # fmt: skip
def test_cells_follow_the_guidelines(n, cells):
    graph = "_HNSW32" if n > 10**6 else ""
    assert f"IVF{cells}{graph},SQ8" in list_factories(n, 512)


def test_the_tightest_code_is_suggested_where_nothing_else_fits():
    assert list_factories(999, 512) == ["Flat"]
    wide = ["HNSW32", "IVF4096,Flat", "IVF4096,SQ8", "IVF4096,PQ128"]
    assert list_factories(10**6, 512) == list_factories(10**6, 512, 200e6) == wide
    assert list_factories(10**6, 512, 100e6) == [*wide, "OPQ32,IVF4096,PQ32"]


@pytest.mark.parametrize("d", [1, 3, 30, 37, 192, 512, 640, 768])
def test_suggested_codes_divide_the_dimensions(d):
    codes = [parse_factory(string).code for string in list_factories(1500, d, memory=1)]
    parts = [int(code[2:]) for code in codes if code.startswith("PQ")]
    assert len(parts) == 2 and all(d % m == 0 for m in parts)
    assert d < 512 or parts == [d // 4, d // 16]


def test_settings_grow():
    assert list(list_settings("Flat")) == [{}]
    assert list(list_settings("IVF5,Flat")) == [{"nprobe": 1}, {"nprobe": 2}, {"nprobe": 4}]
    assert list(list_settings("IVF2,PQ8")) == [
        {"nprobe": 1, "k_factor": 10},
        {"nprobe": 2, "k_factor": 10},
        {"nprobe": 1, "k_factor": 100},
        {"nprobe": 2, "k_factor": 100},
    ]
    assert next(list_settings("HNSW8,SQ8")) == {"efSearch": 16, "k_factor": 4}
