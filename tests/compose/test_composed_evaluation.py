"""The protocols of FashionIQ and CIRR, by hand, against slow versions, and with random vectors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regionlab.compose.protocols import (
    CirrProtocol,
    FashionIqProtocol,
    rank_gallery,
    rank_subsets,
    rank_targets,
    write_cirr_submission,
)
from regionlab.data.triplets import Triplets, make_queries

average_categories, compare_categories = FashionIqProtocol().summarise, FashionIqProtocol().compare
score_fashioniq = FashionIqProtocol().score


def measure_cirr(*arrays, **options):
    return CirrProtocol(**options).measure(*arrays)


def measure_fashioniq(*arrays, **options):
    return FashionIqProtocol(**options).measure(*arrays)


def name_image(row):
    return f"image{row}"


def make_triplets(rows, n, *, name="cirr", split="val"):
    """Make triplets of (reference, target or None, subset) rows of a gallery of n images."""
    named = [
        (reference, None if target is None else name_image(target), subset)
        for reference, target, subset in rows
    ]
    queries = make_queries(
        (str(i), name_image(reference), target, ("is red",), tuple(map(name_image, subset)))
        for i, (reference, target, subset) in enumerate(named)
    )
    gallery = tuple(map(name_image, range(n)))
    files = {image: Path(image) for image in gallery}
    return Triplets(name, split, "", queries, gallery, files)


def draw_triplets(rng, q, n, *, subset=6):
    """Draw queries whose subsets hold six different images, reference and target among them."""
    rows = []
    for _ in range(q):
        members = rng.choice(n, max(subset, 2), replace=False)
        rows.append((members[0], members[1], rng.permutation(members) if subset else ()))
    return make_triplets(rows, n)


def draw_units(rng, n, d=8):
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw_tied(rng, n):
    """Draw unit vectors of length 4 whose products are exact: -1, -0.5, 0, 0.5 or 1."""
    return rng.choice([-0.5, 0.5], (n, 4)).astype(np.float32)


def draw_world(seed, *, tied, q=60, n=40, subset=6):
    """Draw (triplets, composed, gallery), with many equal scores or with some equal vectors."""
    rng = np.random.default_rng(seed)
    draw = draw_tied if tied else draw_units
    composed, gallery = draw(rng, q), draw(rng, n)
    gallery[n // 2 :] = gallery[: n - n // 2] if not tied else gallery[n // 2 :]
    return draw_triplets(rng, q, n, subset=subset), composed, gallery


# Slow and plainly right


def rank_slowly(query, gallery, rows):
    """Sort candidate rows by cosine in plain Python; rows of equal score in rising order."""
    score = {
        row: sum(float(a) * float(b) for a, b in zip(query, gallery[row], strict=True))
        for row in rows
    }
    return sorted(rows, key=lambda row: (-score[row], row))


def measure_slowly(triplets, composed, gallery, k, *, keep_reference, candidates=None):
    hits = []
    for i, query in enumerate(triplets.queries.itertuples()):
        names = candidates(query) if candidates else triplets.gallery
        rows = [triplets.gallery.index(name) for name in names]
        if not keep_reference:
            rows.remove(triplets.gallery.index(query.reference))
        ranking = rank_slowly(composed[i], gallery, rows)
        hits.append(triplets.gallery.index(query.target) in ranking[:k])
    return np.array(hits, float)


worlds = pytest.mark.parametrize(
    ("seed", "tied"), [(0, False), (1, False), (2, True), (3, True), (4, True)]
)


@worlds
def test_fashioniq_is_that_of_a_slow_version(seed, tied):
    triplets, composed, gallery = draw_world(seed, tied=tied)
    measured = measure_fashioniq(composed, gallery, triplets, cuts=(1, 10, 25))
    assert list(measured) == ["hit@1", "hit@10", "hit@25"]
    for k in (1, 10, 25):
        expected = measure_slowly(triplets, composed, gallery, k, keep_reference=True)
        np.testing.assert_array_equal(measured[f"hit@{k}"], expected)


@worlds
def test_fashioniq_among_the_union_is_that_of_a_slow_version(seed, tied):
    triplets, composed, gallery = draw_world(seed, tied=tied, q=9)
    named = {*triplets.queries["reference"], *triplets.queries["target"]}
    assert 9 < len(named) < len(triplets.gallery)
    measured = measure_fashioniq(composed, gallery, triplets, gallery="union", cuts=(1, 5))
    for k in (1, 5):
        expected = measure_slowly(
            triplets, composed, gallery, k, keep_reference=True, candidates=lambda _: named
        )
        np.testing.assert_array_equal(measured[f"hit@{k}"], expected)


@worlds
def test_cirr_is_that_of_a_slow_version(seed, tied):
    triplets, composed, gallery = draw_world(seed, tied=tied)
    measured = measure_cirr(composed, gallery, triplets)
    names = ["hit@1", "hit@5", "hit@10", "hit@50"]
    assert list(measured) == [*names, "subset_hit@1", "subset_hit@2", "subset_hit@3"]
    for k in (1, 5, 10, 50):
        expected = measure_slowly(triplets, composed, gallery, k, keep_reference=False)
        np.testing.assert_array_equal(measured[f"hit@{k}"], expected)
    for k in (1, 2, 3):
        expected = measure_slowly(
            triplets, composed, gallery, k, keep_reference=False, candidates=lambda q: q.subset
        )
        np.testing.assert_array_equal(measured[f"subset_hit@{k}"], expected)


@worlds
@pytest.mark.parametrize("leave_out", [False, True])
def test_places_are_those_of_the_sorted_ranking(seed, tied, leave_out):
    triplets, composed, gallery = draw_world(seed, tied=tied, q=600)  # more than one block
    exclude = triplets.reference_rows if leave_out else None
    ranks = rank_targets(composed, gallery, triplets.target_rows, exclude=exclude)
    rows, _ = rank_gallery(composed, gallery, k=len(gallery), exclude=exclude)
    np.testing.assert_array_equal(ranks - 1, (rows == triplets.target_rows[:, None]).argmax(1))


def test_equal_vectors_tie_wherever_they_stand():
    rng = np.random.default_rng(0)
    composed, one = draw_units(rng, 200, 64), draw_units(rng, 1, 64)
    gallery = np.repeat(one, 37, axis=0)
    targets = np.arange(200) % 37
    np.testing.assert_array_equal(rank_targets(composed, gallery, targets), targets + 1)


# By hand: the composed vector looks along the first axis, so an image's score is its first number.


def on_circle(*cosines):
    cosines = np.array(cosines, np.float32)
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


# Ranked 2, 0, 4, 1, 6, 3, 5, where 4 and 1 tie as equal vectors, but 1 comes first.
GALLERY = on_circle(0.8, 0.4, 0.9, 0.2, 0.4, 0.1, 0.3)
ALONG = np.array([[1, 0]], np.float32)
HAND = [(2, 4, (0, 1, 2, 3, 4, 5))]  # reference 2 would be first, target 4 fourth


def test_by_hand_the_target_is_fourth_with_the_reference_in_the_ranking():
    measured = measure_fashioniq(ALONG, GALLERY, make_triplets(HAND, 7), cuts=(3, 4))
    assert {name: values.tolist() for name, values in measured.items()} == {
        "hit@3": [0],
        "hit@4": [1],
    }


def test_by_hand_the_target_is_second_in_the_union():
    measured = measure_fashioniq(
        ALONG, GALLERY, make_triplets(HAND, 7), gallery="union", cuts=(1, 2)
    )
    assert [values.tolist() for values in measured.values()] == [[0], [1]]


def test_by_hand_the_target_is_third_without_the_reference():
    measured = measure_cirr(ALONG, GALLERY, make_triplets(HAND, 7), cuts=(2, 3))
    found = {name: values.tolist() for name, values in measured.items()}
    subset = {"subset_hit@1": [0], "subset_hit@2": [0], "subset_hit@3": [1]}
    assert found == {"hit@2": [0], "hit@3": [1], **subset}


def test_by_hand_the_subset_is_ranked_without_the_reference():
    (rows,) = rank_subsets(ALONG, GALLERY, make_triplets(HAND, 7))
    assert rows.tolist() == [0, 1, 4, 3, 5]


def test_a_subset_of_other_order_ranks_alike():
    turned = make_triplets([(2, 4, (5, 4, 3, 2, 1, 0))], 7)
    assert rank_subsets(ALONG, GALLERY, turned)[0].tolist() == [0, 1, 4, 3, 5]


# Averages and selection


MEASURED = {
    "dress": {"hit@10": np.array([1.0, 0, 0, 0]), "hit@50": np.array([1.0, 1, 0, 0])},
    "shirt": {"hit@10": np.array([1.0, 1, 0]), "hit@50": np.array([1.0, 1, 0])},
}


def test_fashioniq_averages_categories_not_queries():
    averages = average_categories(MEASURED, seed=0)
    assert averages["hit@10"]["value"] == pytest.approx((1 / 4 + 2 / 3) / 2)
    assert averages["hit@50"]["value"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert averages["hit@10"]["n"] == 7
    assert all(isinstance(bound, float) for bound in averages["hit@10"]["ci95"])


def test_the_interval_draws_queries_within_their_category():
    # Between categories all differs, within them nothing: so nothing is left to draw.
    clear = {"a": {"hit@10": np.ones(30)}, "b": {"hit@10": np.zeros(5)}}
    assert average_categories(clear, seed=0)["hit@10"] == {
        "value": 0.5,
        "ci95": [0.5, 0.5],
        "n": 35,
    }


def test_the_interval_is_that_of_the_mean_of_independent_means():
    rng = np.random.default_rng(0)
    shares = {"a": (0.2, 400), "b": (0.5, 900), "c": (0.7, 300)}
    drawn = {name: {"hit@10": rng.random(n) < p} for name, (p, n) in shares.items()}
    drawn = {name: {"hit@10": m["hit@10"].astype(float)} for name, m in drawn.items()}
    variance = sum(m["hit@10"].var() / len(m["hit@10"]) for m in drawn.values()) / 9
    low, high = average_categories(drawn, seed=1, resamples=5000)["hit@10"]["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.06)


def draw_grouped(seed, number=30):
    """Return hits of two categories whose groups lie in both and are alike, and their labels."""
    rng = np.random.default_rng(seed)
    level = rng.random(number)
    labels = {c: rng.integers(number, size=size) for c, size in (("a", 150), ("b", 90))}
    hits = {c: {"hit@10": (rng.random(len(g)) < level[g]) * 1.0} for c, g in labels.items()}
    return hits, labels


def test_the_interval_over_groups_draws_them_for_all_categories_at_once():
    hits, labels = draw_grouped(0)
    names, rng, means = np.unique(np.r_[labels["a"], labels["b"]]), np.random.default_rng(1), []
    for _ in range(3000):
        drawn = rng.choice(names, len(names))
        rows = {
            c: np.concatenate([np.flatnonzero(g == n) for n in drawn]) for c, g in labels.items()
        }
        means.append(np.mean([hits[c]["hit@10"][rows[c]].mean() for c in hits]))
    found = average_categories(hits, seed=0, groups=labels, resamples=3000)["hit@10"]
    assert found["ci95"] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.012)
    alone = average_categories(hits, seed=0)["hit@10"]
    assert found["value"] == alone["value"] and found["n"] == alone["n"] == 240
    assert np.ptp(found["ci95"]) > 1.3 * np.ptp(alone["ci95"])


def test_the_interval_of_a_difference_is_that_of_the_differences_average():
    hits, labels = draw_grouped(2)
    misses = {c: {"hit@10": 1 - m["hit@10"]} for c, m in hits.items()}
    found = compare_categories(hits, misses, "hit@10", seed=0, groups=labels)
    doubled = average_categories(hits, seed=0, groups=labels)["hit@10"]
    assert found["value"] == pytest.approx(2 * doubled["value"] - 1)
    assert found["ci95"] == pytest.approx([2 * end - 1 for end in doubled["ci95"]])


def test_all_found_in_every_category_has_the_exact_interval_of_the_smallest():
    found = average_categories(
        {"a": {"hit@10": np.ones(30)}, "b": {"hit@10": np.ones(20)}}, seed=0
    )["hit@10"]
    assert found["ci95"] == pytest.approx([0.025 ** (1 / 20), 1])


def test_no_difference_at_all_has_no_width():
    hits, labels = draw_grouped(3)
    assert compare_categories(hits, hits, "hit@10", seed=0, groups=labels)["ci95"] == [0, 0]


def test_the_same_seed_gives_the_same_interval():
    first, again = (average_categories(MEASURED, seed=3) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("by_category", [{}, {"a": MEASURED["dress"], "b": {"hit@10": np.ones(3)}}])
def test_categories_measured_differently_have_no_average(by_category):
    with pytest.raises(ValueError, match="measured by the same metrics"):
        average_categories(by_category, seed=0)


def test_fashioniq_models_are_selected_by_both_cuts():
    expected = ((1 / 4 + 2 / 3) / 2 + (2 / 4 + 2 / 3) / 2) / 2
    assert score_fashioniq(MEASURED) == pytest.approx(expected)


def test_cirr_models_are_selected_by_the_leaderboards_average():
    measured = {"hit@5": np.array([1.0, 1, 0, 0]), "subset_hit@1": np.array([1.0, 0, 0, 0])}
    assert CirrProtocol().score({"": measured}) == (2 / 4 + 1 / 4) / 2


def test_a_summary_has_value_interval_and_count():
    summary = CirrProtocol().summarise({"": MEASURED["dress"]}, seed=0)
    assert list(summary) == ["hit@10", "hit@50"]
    assert summary["hit@50"]["value"] == 2 / 4 and summary["hit@50"]["n"] == 4


# Random vectors know nothing: the target's place is drawn evenly


def measure_random(measure, triplets, n, **options):
    """Average over worlds of random vectors; return the mean and its standard error."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        gallery, composed = draw_units(rng, n, 64), draw_units(rng, len(triplets), 64)
        measured = measure(composed, gallery, triplets, **options)
        found.append({name: values.mean() for name, values in measured.items()})
    columns = {name: np.array([means[name] for means in found]) for name in found[0]}
    return {name: (v.mean(), v.std(ddof=1) / len(v) ** 0.5) for name, v in columns.items()}


def test_random_vectors_reach_the_shares_of_cirrs_protocol():
    triplets = draw_triplets(np.random.default_rng(7), 300, 101)
    measured = measure_random(measure_cirr, triplets, 101)
    for k in (1, 5, 10, 50):
        value, error = measured[f"hit@{k}"]
        assert abs(value - k / 100) < 4 * error < 0.05
    for k in (1, 2, 3):
        value, error = measured[f"subset_hit@{k}"]
        assert abs(value - k / 5) < 4 * error < 0.05


@pytest.mark.parametrize("gallery", ["split", "union"])
def test_random_vectors_reach_the_shares_of_fashioniqs_protocol(gallery):
    triplets = draw_triplets(np.random.default_rng(8), 60, 200, subset=0)
    n = {"split": 200, "union": len(triplets.union_rows)}[gallery]
    assert len(triplets.union_rows) < 120
    measured = measure_random(measure_fashioniq, triplets, 200, gallery=gallery)
    for k in (10, 50):
        value, error = measured[f"hit@{k}"]
        assert abs(value - k / n) < 4 * error < 0.06


# The test server's files


@pytest.fixture
def hidden():
    """Return triplets without targets, and vectors for them."""
    rng = np.random.default_rng(5)
    triplets = draw_triplets(rng, 30, 80)
    triplets = replace(triplets, queries=triplets.queries.assign(target=None), split="test1")
    return triplets, draw_units(rng, 30), draw_units(rng, 80)


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_submission_names_the_first_50_and_the_first_3_of_the_subset(hidden, tmp_path):
    triplets, composed, gallery = hidden
    files = write_cirr_submission(tmp_path / "new" / "folder", composed, gallery, triplets)
    assert [file.name for file in files] == ["recall.json", "recall_subset.json"]
    recall, subset = map(read, files)
    assert (recall.pop("version"), subset.pop("version")) == ("rc2", "rc2")
    assert (recall.pop("metric"), subset.pop("metric")) == ("recall", "recall_subset")
    assert list(recall) == list(subset) == triplets.queries["query_id"].tolist()
    for i, query in enumerate(triplets.queries.itertuples()):
        for found, among, k in ((recall, triplets.gallery, 50), (subset, query.subset, 3)):
            rows = [triplets.gallery.index(name) for name in among if name != query.reference]
            expected = rank_slowly(composed[i], gallery, rows)[:k]
            assert found[query.query_id] == [triplets.gallery[row] for row in expected]


def test_the_submission_agrees_with_the_measured_hits(tmp_path):
    triplets, composed, gallery = draw_world(0, tied=True, n=90)
    measured = measure_cirr(composed, gallery, triplets)
    files = write_cirr_submission(tmp_path, composed, gallery, triplets)
    for file, metric in zip(files, ("hit@50", "subset_hit@3"), strict=True):
        found = read(file)
        pairs = zip(triplets.queries["query_id"], triplets.queries["target"], strict=True)
        assert measured[metric].tolist() == [target in found[pair] for pair, target in pairs]


def test_a_submission_too_large_for_the_server_is_not_written(hidden, tmp_path, monkeypatch):
    triplets, composed, gallery = hidden
    monkeypatch.setattr("regionlab.compose.protocols.MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"recall.json would have 1\d,\d+ bytes; 10,000 at most"):
        write_cirr_submission(tmp_path / "files", composed, gallery, triplets)
    assert not (tmp_path / "files").exists()


def test_a_submission_needs_subsets(tmp_path):
    triplets, composed, gallery = draw_world(0, tied=False, subset=0)
    with pytest.raises(ValueError, match="cirr val has no subsets"):
        write_cirr_submission(tmp_path, composed, gallery, triplets)


# What is refused


@pytest.mark.parametrize("measure", [measure_fashioniq, measure_cirr])
def test_hidden_targets_cannot_be_measured(measure, hidden):
    triplets, composed, gallery = hidden
    with pytest.raises(ValueError, match="test1 are hidden: .* write_cirr_submission"):
        measure(composed, gallery, triplets)


def test_cirrs_protocol_needs_subsets():
    triplets, composed, gallery = draw_world(0, tied=False, subset=0)
    with pytest.raises(ValueError, match="has no subsets"):
        measure_cirr(composed, gallery, triplets)


def spoil(vectors, value):
    vectors = vectors.copy()
    vectors[3] = value
    return vectors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, g: (c[:-1], g), "59 composed vectors for the 60 queries of cirr val"),
        (lambda c, g: (c, g[:-1]), "39 gallery vectors for the 40 images of cirr val"),
        (lambda c, g: (c[:, :4] / np.linalg.norm(c[:, :4], axis=1, keepdims=True), g), "4 wide"),
        (lambda c, g: (c[0], g), r"composed vectors must be a matrix, .* shape \(8,\)"),
        (lambda c, g: (spoil(c, np.nan), g), "composed vectors must be finite .* row 3, has nan"),
        (lambda c, g: (c, spoil(g, np.inf)), "gallery vectors must be finite .* row 3, has inf"),
        (lambda c, g: (spoil(c, 0), g), "1 of 60 are not, the first, row 3, has 0"),
        (lambda c, g: (c, g * 1.01), "40 of 40 are not, the first, row 0, has 1.01"),
    ],
)
@pytest.mark.parametrize("measure", [measure_fashioniq, measure_cirr])
def test_vectors_that_do_not_fit_are_refused(measure, change, message):
    triplets, composed, gallery = draw_world(0, tied=False)
    with pytest.raises(ValueError, match=message):
        measure(*change(composed, gallery), triplets)


def test_a_submission_of_vectors_that_do_not_fit_is_refused(hidden, tmp_path):
    triplets, composed, gallery = hidden
    with pytest.raises(ValueError, match="29 composed vectors for the 30 queries"):
        write_cirr_submission(tmp_path, composed[1:], gallery, triplets)


@pytest.mark.parametrize("cut", [0, -1, 2.5, True])
def test_cuts_are_whole_numbers_from_1(cut):
    triplets, composed, gallery = draw_world(0, tied=False)
    for options in ({"cuts": (cut,)}, {"subset_cuts": (cut,)}):
        with pytest.raises(ValueError, match="cut must be a whole number"):
            measure_cirr(composed, gallery, triplets, **options)


def test_the_galleries_of_fashioniq_are_two():
    triplets, composed, gallery = draw_world(0, tied=False)
    with pytest.raises(ValueError, match="gallery must be one of 'split', 'union', got 'all'"):
        measure_fashioniq(composed, gallery, triplets, gallery="all")


@pytest.mark.parametrize(
    ("targets", "exclude", "message"),
    [
        ([0, 40], None, r"targets must be 2 rows in \[0, 40\)"),
        ([0, -1], None, "targets must be 2 rows"),
        ([0], None, "targets must be 2 rows"),
        ([0, 1], [2], r"exclude must be 2 rows in \[-1, 40\)"),
        ([0, 1], [2, 40], "exclude must be 2 rows"),
        ([0, 1], [2, 1], "left out of its own ranking"),
    ],
)
def test_rows_that_do_not_fit_are_refused(targets, exclude, message):
    _, composed, gallery = draw_world(0, tied=False)
    with pytest.raises(ValueError, match=message):
        rank_targets(composed[:2], gallery, targets, exclude=exclude)


def test_a_ranking_is_as_long_as_there_are_images():
    _, composed, gallery = draw_world(0, tied=False)
    rows, scores = rank_gallery(composed, gallery, k=99, exclude=np.zeros(60, int))
    assert rows.shape == scores.shape == (60, 39)
    assert 0 not in rows
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        rank_gallery(composed, gallery, k=0)
