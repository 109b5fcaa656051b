"""Relevance feedback: vectors worked by hand, sessions that never change, and the protocol."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.index.index import Index
from regionlab.search.feedback import FeedbackSession, refine
from regionlab.search.query import Part, Query
from regionlab.studies.feedback import (
    choose_settings,
    measure_feedback,
    play_rounds,
    summarise_rounds,
)

X, Y, Z = np.eye(3, dtype=np.float32)
NONE = np.empty((0, 3), np.float32)


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_index(regions, images=None):
    """An index of images named "0", "1", ..., each with a list of region vectors."""
    counts = [len(one) for one in regions]
    held = np.concatenate([np.reshape(one, (-1, 3)) for one in regions])
    images = np.tile(X, (len(regions), 1)) if images is None else images
    names = [str(i) for i in range(len(regions))]
    size = {"height": 10, "width": 10}
    box = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}
    return Index(
        Path("index"),
        {"collection": "hand-made", "model": {"model": "none"}},
        Path("photos"),
        pd.DataFrame({"image_id": names, "path": names, **size}),
        unit(images),
        pd.DataFrame(),
        pd.DataFrame({"row": np.repeat(np.arange(len(regions)), counts), **box}).assign(
            region_id=lambda table: [f"region {i}" for i in range(len(table))]
        ),
        unit(held),
    )


def ids(ranking):
    return ranking.table()["image_id"].tolist()


@pytest.fixture
def world():
    """40 images with 0 to 3 regions, and a query."""
    rng = np.random.default_rng(3)
    regions = [rng.normal(size=(count, 3)) for count in rng.integers(0, 4, 40)]
    return make_index(regions, rng.normal(size=(40, 3))), Query([Part(unit(rng.normal(size=3)))])


# Vectors


def test_rocchio_adds_the_mean_of_the_liked_and_takes_away_that_of_the_disliked():
    weights = {"alpha": 2.0, "beta": 4.0, "gamma": 0.5}
    moved = refine(X, [Y, X], [Z], **weights)
    # 2 X + 4 (X + Y) / 2 - Z / 2
    assert moved == pytest.approx(np.array([4, 2, -0.5]) / np.sqrt(16 + 4 + 0.25))
    assert moved.dtype == np.float32
    assert refine(X, NONE, [Y], **weights) == pytest.approx(np.array([2, -0.5, 0]) / np.sqrt(4.25))


def test_a_query_that_its_dislikes_cancel_stays():
    assert refine(X, NONE, [X], gamma=1.0).tolist() == X.tolist()


@pytest.mark.parametrize("method", ["rocchio", "logistic"])
def test_without_judgements_the_query_stays(method):
    assert refine(X, NONE, NONE, unjudged=[Y, Z], method=method).tolist() == X.tolist()


def test_a_logistic_head_ranks_as_its_own_probabilities_do():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    liked, disliked, unjudged, gallery = (unit(rng.normal(size=(n, 3))) for n in (4, 3, 9, 50))
    moved = refine(X, liked, disliked, unjudged=unjudged, method="logistic", C=3.0)
    examples = np.vstack([X, liked, disliked, unjudged])
    head = LogisticRegression(C=3.0).fit(examples, [1] * 5 + [0] * 12)
    expected = np.argsort(head.predict_proba(gallery)[:, 1])
    assert np.argsort(gallery @ moved).tolist() == expected.tolist()
    assert np.linalg.norm(moved) == pytest.approx(1)


def test_a_logistic_head_held_small_points_from_one_mean_to_the_other():
    liked, disliked = unit([[0, 1, 0.2]]), unit([[0.9, 0, 0.4]])
    moved = refine(X, liked, disliked, method="logistic", C=1e-4)
    assert moved == pytest.approx(unit((X + liked[0]) / 2 - disliked[0]), abs=1e-3)


def test_a_logistic_head_without_any_other_side_leaves_the_query():
    assert refine(X, [Y], NONE, method="logistic").tolist() == X.tolist()


def test_dislikes_alone_turn_both_methods_away():
    near = unit([[1, 0.5, 0]])
    for method in ("rocchio", "logistic"):
        assert refine(X, NONE, near, method=method) @ near[0] < X @ near[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'; known: rocchio, logistic"),
        ({"C": 1.0}, r"rocchio has no setting 'C'; it has \['alpha', 'beta', 'gamma'\]"),
        ({"gamma": -1.0}, "gamma must be 0 or more, got -1.0"),
        ({"beta": np.nan}, "beta must be 0 or more, got nan"),
        ({"method": "logistic", "C": 0}, "C must be above 0, got 0"),
        ({"liked": np.eye(2)}, r"liked must be \(n, 3\) vectors, got \(2, 2\)"),
        ({"disliked": X}, r"disliked must be \(n, 3\) vectors, got \(3,\)"),
    ],
)
def test_what_cannot_be_refined_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        refine(X, **{"liked": NONE, "disliked": NONE, **options})


# Sessions


def test_a_session_never_changes_and_undo_is_a_step_back(world):
    index, query = world
    start = FeedbackSession(index, query)
    once = start.judge("7", True)
    twice = once.judge("8", False)
    assert (start.judgements, once.judgements) == ({}, {"7": True})
    assert twice.judgements == {"7": True, "8": False}
    assert twice.undo().history == once.history
    assert ids(twice.undo().rank(40)) == ids(once.rank(40)) != ids(start.rank(40))
    assert ids(twice.undo().undo().rank(40)) == ids(start.rank(40)) == ids(start.before)
    with pytest.raises(FrozenInstanceError):
        start.history = ()
    with pytest.raises(ValueError, match="no judgement to undo"):
        start.undo()


@pytest.mark.parametrize("method", ["rocchio", "logistic"])
def test_what_was_said_counts_and_not_in_which_order(world, method):
    index, query = world
    options = {"method": method, "seed": 5}
    said = [("3", True), ("9", False), ("12", True)]
    one = FeedbackSession(index, query, history=said, **options)
    other = FeedbackSession(index, query, **options)
    for image_id, liked in reversed(said):
        other = other.judge(image_id, liked)
    vector = one.refine_query().vectors[0]
    assert other.refine_query().vectors[0] == pytest.approx(vector, abs=1e-5)
    assert np.abs(vector - query.vectors[0]).max() > 0.01


def test_the_last_word_about_an_image_counts_and_can_be_taken_back(world):
    index, query = world
    session = FeedbackSession(index, query).judge("3", True).judge("3", False)
    assert session.judgements == {"3": False}
    assert session.judge("3", None).judgements == {}
    assert session.judge("3", None).undo().judgements == {"3": False}
    assert ids(session.judge("3", None).rank(40)) == ids(session.before)


def test_a_liked_image_speaks_by_the_region_that_matched():
    index = make_index([[X, Y], [unit(X + Y), Z], [Z]])
    session = FeedbackSession(index, Query([Part(X)])).judge("1", True)
    assert session.refine_query().vectors[0] == pytest.approx(unit(X + unit(X + Y)))


def test_each_part_learns_from_a_region_of_its_own():
    near_x, near_y = unit([3, 0, 1]), unit([0, 3, -1])
    index = make_index([[near_y, near_x, Z], [X]])
    query = Query([Part(X), Part(Y), Part(Z, weight=-0.5)])
    refined = FeedbackSession(index, query).judge("0", True).refine_query()
    assert refined.vectors == pytest.approx(np.stack([unit(X + near_x), unit(Y + near_y), Z]))
    assert refined.weights.tolist() == query.weights.tolist()


def test_against_images_the_whole_image_speaks():
    index = make_index([[X], [X]], images=[X, Y])
    session = FeedbackSession(index, Query([Part(X)]), {"target": "images"}).judge("1", True)
    assert session.refine_query().vectors[0] == pytest.approx(unit(X + Y))


def test_an_image_without_a_match_has_nothing_to_say():
    index = make_index([[X], [], [Y]])
    session = FeedbackSession(index, Query([Part(X)])).judge("1", True)
    assert session.refine_query().vectors[0].tolist() == X.tolist()
    own = FeedbackSession(index, Query([Part(X)]), exclude=2).judge("2", True)
    assert own.refine_query().vectors[0].tolist() == X.tolist()


def test_the_ranking_may_leave_out_what_is_judged(world):
    index, query = world
    session = FeedbackSession(index, query, exclude=4)
    first = ids(session.rank(5))
    for image_id in first:
        session = session.judge(image_id, image_id == first[0])
    whole, new = ids(session.rank(40)), ids(session.rank(40, new_only=True))
    assert new == [image_id for image_id in whole if image_id not in first]
    assert len(whole) == 39
    assert ids(session.rank(7, new_only=True)) == new[:7]
    assert first[0] in ids(session.rank(5))


def test_orders_are_compared_before_and_after(world):
    index, query = world
    session = FeedbackSession(index, query, exclude=4).judge("9", True).judge("7", False)
    table = session.compare_orders(40)
    assert sorted(table["before"]) == list(range(1, 40))
    before = dict(zip(ids(session.before), range(1, 40), strict=True))
    assert table["before"].tolist() == [before[image_id] for image_id in table["image_id"]]
    assert table["rank"].tolist() == list(range(1, 40))
    said = dict(zip(table["image_id"], table["liked"], strict=True))
    assert (said["9"], said["7"], said["8"]) == (True, False, None)


def test_the_logistic_head_is_not_shown_judged_images_as_the_rest(world):
    index, query = world
    session = FeedbackSession(index, query, method="logistic", negatives=40, exclude=4)
    session = session.judge("7", True)
    vector, images = query.vectors[0], np.arange(40)
    place = {row: i for i, row in enumerate(session.before.rows[0].tolist())}
    matched = {row: session.before.regions[0, place[row], 0] for row in images if row != 4}
    rest = [matched[row] for row in images if row not in (4, 7) and matched[row] >= 0]
    expected = refine(
        vector, index.region_vectors[[matched[7]]], NONE,
        unjudged=index.region_vectors[rest], method="logistic",
    )  # fmt: skip
    assert session.refine_query().vectors[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"history": [("99", True)]}, KeyError, "no image '99'"),
        ({"history": [("1", 1)]}, ValueError, "1 must be liked True, False or None, not 1"),
        ({"method": "magic"}, ValueError, "unknown method 'magic'"),
        ({"settings": {"C": 1}}, ValueError, "rocchio has no setting 'C'"),
        ({"settings": {"beta": -1}}, ValueError, "beta must be 0 or more"),
        ({"search": {"target": "dreams"}}, ValueError, "target must be one of"),
        ({"exclude": 40}, ValueError, "exclude must be"),
    ],
)
def test_what_is_no_session_is_refused_at_once(world, options, error, message):
    with pytest.raises(error, match=message):
        FeedbackSession(*world, **options)


# The protocol


def test_rounds_are_scored_without_what_was_judged():
    """Eight images on a line; the user wants 1, 4, 5 and 7, and judges two a round."""
    index = make_index([[[1, 0.1 * i, 0]] for i in range(8)])
    relevant = np.isin(np.arange(8), [1, 4, 5, 7])
    session = FeedbackSession(index, Query([Part(X)]), settings={"beta": 0, "gamma": 0})
    session, found = play_rounds(session, relevant, rounds=4, page=2)
    assert session.judgements == {str(i): bool(relevant[i]) for i in range(8)}
    # Without weight for the judgements the order stays 0 1 2 3 4 5 6 7.
    whole = (1 / 2 + 2 / 5 + 3 / 6 + 4 / 8) / 4
    residual = [whole, (1 / 3 + 2 / 4 + 3 / 6) / 3, (1 / 1 + 2 / 2 + 3 / 4) / 3, 1 / 2, np.nan]
    assert found["feedback"] == pytest.approx(residual, nan_ok=True)
    assert found["none"] == pytest.approx(residual, nan_ok=True)
    assert found["frozen"] == pytest.approx([whole] * 5)


def test_frozen_images_keep_their_places_and_give_no_credit_for_moving_up():
    """The query finds 0 first; liking 1 brings 3 before 2, but 0 and 1 stay where they were."""
    index = make_index([[X], [unit([1, 1, 0])], [unit([1, 0, 1.5])], [unit([0, 1, 0])]])
    session = FeedbackSession(index, Query([Part(X)]), settings={"beta": 5.0, "gamma": 0})
    assert ids(session.before) == ["0", "1", "2", "3"]
    _, found = play_rounds(session, np.array([0, 1, 0, 1], bool), rounds=1, page=2)
    assert found["frozen"] == pytest.approx([(1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2])
    assert found["feedback"] == pytest.approx([(1 / 2 + 2 / 4) / 2, 1])
    assert found["none"] == pytest.approx([(1 / 2 + 2 / 4) / 2, 1 / 2])


def slow_precision(order, relevant):
    hits = [int(relevant[row]) for row in order]
    if not sum(hits):
        return np.nan
    return sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]) / sum(hits)


@pytest.mark.parametrize("method", ["rocchio", "logistic"])
def test_rounds_agree_with_a_protocol_played_by_hand(world, method):
    index, query = world
    relevant = np.random.default_rng(1).random(40) < 0.4
    session = FeedbackSession(index, query, exclude=6, method=method, negatives=5)
    _, found = play_rounds(session, relevant, rounds=3, page=4)
    shown = []
    for number in range(4):
        now = [row for row in session.rank(40).rows[0] if row not in shown]
        first = [row for row in session.before.rows[0] if row not in shown]
        expected = slow_precision(now, relevant), slow_precision(first, relevant)
        assert (found["feedback"][number], found["none"][number]) == pytest.approx(expected)
        assert found["frozen"][number] == pytest.approx(slow_precision(shown + now, relevant))
        for row in now[:4]:
            session = session.judge(str(row), bool(relevant[row]))
        shown += now[:4]


def clusters(seed=0):
    """60 images of three kinds, known by x, y or z; colour and noise in the other axes."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat([0, 1, 2], 20)
    vectors = 0.9 * np.eye(3)[kinds] + rng.normal(0, 0.6, (60, 3))
    queries = [Query([Part(unit(vectors[row]))]) for row in range(0, 60, 6)]
    relevance = kinds[None] == kinds[::6, None]
    return make_index([[vector] for vector in unit(vectors)]), queries, relevance


def test_feedback_is_worth_something_where_kinds_can_be_told_apart():
    index, queries, relevance = clusters()
    own = np.arange(0, 60, 6)
    measured = measure_feedback(index, queries, relevance, exclude=own, rounds=2, page=5)
    assert {name: values.shape for name, values in measured.items()} == {
        "feedback": (10, 3), "none": (10, 3), "frozen": (10, 3)
    }  # fmt: skip
    before, _, after = summarise_rounds(measured, seed=0, resamples=200)
    assert before["gain"]["value"] == 0
    assert after["gain"]["ci95"][0] > 0
    difference = after["feedback"]["value"] - after["none"]["value"]
    assert after["gain"]["value"] == pytest.approx(difference)
    assert after["frozen"]["value"] > before["frozen"]["value"] == before["none"]["value"]


def test_a_round_that_leaves_nothing_to_find_has_no_value():
    index, queries, relevance = clusters()
    measured = measure_feedback(index, queries, relevance, rounds=6, page=10)
    assert np.isnan(measured["feedback"][:, 6]).all()
    last = summarise_rounds(measured, seed=0, resamples=100)[6]
    assert set(last) == {"frozen"}
    assert last["frozen"]["n"] == 10


def test_settings_are_chosen_by_the_frozen_measure():
    index, queries, relevance = clusters()
    candidates = [
        ("rocchio", {"beta": 0.0, "gamma": 0.0}),
        ("rocchio", {"beta": 1.0, "gamma": 1.0}),
        ("logistic", {"C": 1.0}),
    ]
    table = choose_settings(index, queries, relevance, candidates, rounds=2, page=5)
    frozen = [
        measure_feedback(
            index, queries, relevance, method=method, settings=settings, rounds=2, page=5
        )["frozen"][:, 2].mean()
        for method, settings in candidates
    ]
    assert table["mAP"].tolist() == pytest.approx(frozen)
    assert table["best"].tolist() == [False, True, True]


def test_relevance_and_exclusions_must_fit_the_queries():
    index, queries, relevance = clusters()
    with pytest.raises(ValueError, match=r"10 queries in 60 images .* got \(9, 60\) and 10"):
        measure_feedback(index, queries, relevance[1:])
    with pytest.raises(ValueError, match=r"got \(10, 60\) and 2"):
        measure_feedback(index, queries, relevance, exclude=[1, 2])
