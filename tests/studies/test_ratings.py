"""Rating studies: sheets that balance, a book that loses nothing, and what ratings say."""

import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest

from regionlab.metrics.stats import krippendorff_alpha
from regionlab.studies.ratings import (
    RatingError,
    RatingStore,
    RatingStudy,
    Task,
    compare_methods,
    count_ratings,
    make_williams_square,
    measure_agreement,
    simulate_ratings,
    summarise_ratings,
)

NAN = np.nan
METHODS = ("A", "B", "C", "D")


def a_study(*, queries=8, per_rater=4, methods=METHODS, **options):
    names = tuple(f"query {i}" for i in range(queries))
    return RatingStudy("trial", names, methods, per_rater, **options)


@pytest.fixture
def book(tmp_path):
    return RatingStore(tmp_path / "ratings.sqlite", a_study())


# Sheets


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6])
def test_each_method_is_equally_often_at_each_place_and_after_each_other(m):
    square = make_williams_square(m)
    places = Counter((place, thing) for row in square for place, thing in enumerate(row))
    followers = Counter(pair for row in square.tolist() for pair in pairwise(row))
    assert set(places.values()) == {len(square) // m}
    assert len(followers) == m * (m - 1)
    assert set(followers.values()) == {len(square) // m}


def test_a_sheet_has_every_method_once_for_each_query_of_the_rater():
    sheet = a_study().make_sheet(3)
    assert [task.position for task in sheet] == list(range(1, 17))
    queries = [task.query for task in sheet]
    assert [len(set(queries[i : i + 4])) for i in range(0, 16, 4)] == [1] * 4
    assert len(set(queries)) == 4
    assert {(task.query, task.method) for task in sheet} == set(product(set(queries), METHODS))


@pytest.mark.parametrize("raters", range(1, 12))
def test_no_query_is_handed_out_two_times_more_than_another(raters):
    study = a_study(queries=7, per_rater=3)
    asked = Counter({query: 0 for query in study.queries})
    for number in range(raters):
        asked.update({task.query for task in study.make_sheet(number)})
    assert max(asked.values()) - min(asked.values()) <= 1
    assert sum(asked.values()) == 3 * raters


def test_orders_balance_within_a_rater_and_over_the_raters_of_a_query():
    study = a_study()
    first, second = Counter(), Counter()
    for number in range(8):  # each query four times
        sheet = study.make_sheet(number)
        mine = Counter((i % 4, task.method) for i, task in enumerate(sheet))
        assert set(mine.values()) == {1}
        first.update((task.query, i % 4, task.method) for i, task in enumerate(sheet))
        second.update(task.query for task in sheet)
    assert set(first.values()) == {1}
    assert set(second.values()) == {16}


def test_sheets_follow_from_seed_and_number():
    study = a_study()
    assert study.make_sheet(2) == a_study().make_sheet(2)
    assert study.make_sheet(2) != a_study(seed=1).make_sheet(2)
    orders = {tuple(task.query for task in study.make_sheet(n)) for n in (0, 2, 4, 6)}
    assert len(orders) > 1  # the same queries, mixed anew


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("A", "A")}, "methods must be one or more different names"),
        ({"queries": 0}, "queries must be one or more different names"),
        ({"per_rater": 9}, "per_rater is 9, of 8 queries"),
        ({"per_rater": 0}, "per_rater must be a whole number of at least 1"),
    ],
)
def test_what_is_no_study_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        a_study(**options)


# The book


def test_ratings_are_written_as_they_come(book):
    book.enrol("anna")
    for rating in (4, None, 1):
        book.rate("anna", book.find_next("anna").position, rating)
    table = RatingStore(book.file, book.study).read()
    assert table.columns.tolist() == ["time", "rater", "position", "query", "method", "rating"]
    assert table["position"].tolist() == [1, 2, 3]
    assert table["rating"].tolist() == pytest.approx([4, NAN, 1], nan_ok=True)
    sheet = book.get_sheet("anna")[:3]
    assert [Task(*row) for row in table[["position", "query", "method"]].to_numpy()] == sheet
    times = pd.to_datetime(table["time"])
    assert (times.dt.tz is not None) and times.is_monotonic_increasing
    with sqlite3.connect(book.file) as base:
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_rater_who_comes_back_goes_on_where_they_stopped(book):
    number = book.enrol("anna")
    book.enrol("ben")
    for position in (1, 2, 3, 5):
        book.rate("anna", position, 3)
    again = RatingStore(book.file, book.study)
    assert again.enrol("anna") == number
    assert again.find_next("anna").position == 4
    assert again.find_next("ben").position == 1
    for position in range(1, 17):
        again.rate("anna", position, 2)
    assert again.find_next("anna") is None


def test_a_second_answer_replaces_the_first(book):
    book.enrol("anna")
    book.rate("anna", 2, 5)
    book.rate("anna", 2, np.int64(3))
    assert book.get_answers("anna") == {2: 3}
    assert book.read()["rating"].tolist() == [3.0]


def test_raters_may_come_all_at_once(book):
    def take_part(name):
        mine = RatingStore(book.file, book.study)
        mine.enrol(name)
        for task in mine.get_sheet(name):
            mine.rate(name, task.position, 1 + task.position % 5)

    names = [f"rater {i}" for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take_part, names))
    assert sorted(book.enrol(name) for name in names) == list(range(6))
    assert book.read()["rater"].value_counts().tolist() == [16] * 6


def test_a_file_of_another_study_is_refused_and_stays(book):
    book.enrol("anna")
    with pytest.raises(RatingError, match="holds study 'trial' with other per_rater, seed"):
        RatingStore(book.file, a_study(per_rater=2, seed=9))
    with pytest.raises(RatingError, match="with other simulated"):
        RatingStore(book.file, a_study(simulated=True))
    assert RatingStore(book.file, a_study()).enrol("anna") == 0


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, " * 99)
    with pytest.raises(RatingError, match="notes.txt cannot be used for ratings: file is not a"):
        RatingStore(tmp_path / "notes.txt", a_study())
    assert (tmp_path / "notes.txt").read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("position", "rating", "message"),
    [
        (1, 0, "a rating must be 1, 2, 3, 4 or 5, or None to skip, got 0"),
        (1, 6, "got 6"),
        (1, 2.5, "got 2.5"),
        (1, True, "got True"),
        (0, 3, "position must be 1 to 16, got 0"),
        (17, 3, "got 17"),
        (1.5, 3, "got 1.5"),
    ],
)
def test_what_is_no_rating_is_refused(book, position, rating, message):
    book.enrol("anna")
    with pytest.raises(ValueError, match=message):
        book.rate("anna", position, rating)
    assert book.read().empty


def test_only_who_is_enrolled_can_rate(book):
    with pytest.raises(RatingError, match="nobody is enrolled as 'eve'"):
        book.rate("eve", 1, 3)
    with pytest.raises(RatingError, match="needs a name"):
        book.enrol("  ")


def test_names_are_data_and_never_sql(book):
    name = "x'); DROP TABLE ratings; --"
    book.enrol(name)
    book.rate(name, 1, 5)
    assert book.read()["rater"].tolist() == [name]


# Agreement

# Krippendorff (2011), example C: four observers, twelve units, some not observed.
EXAMPLE = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
])  # fmt: skip


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_that_of_krippendorffs_example(level, published):
    assert krippendorff_alpha(EXAMPLE, level=level) == pytest.approx(published, abs=5e-4)


def alpha_slowly(ratings, distance):
    """By pairs of ratings, one after the other."""
    units = [[v for v in column if v == v] for column in ratings.T]
    units = [values for values in units if len(values) > 1]
    every = [v for values in units for v in values]
    observed = sum(
        distance(a, b, every) / (len(values) - 1)
        for values in units
        for i, a in enumerate(values)
        for j, b in enumerate(values)
        if i != j
    )
    expected = sum(distance(a, b, every) for a in every for b in every) / (len(every) - 1)
    return 1 - observed / expected


DISTANCES = {
    "nominal": lambda a, b, every: float(a != b),
    "interval": lambda a, b, every: (a - b) ** 2,
    "ordinal": lambda a, b, every: (
        sum(min(a, b) <= v <= max(a, b) for v in every) - (every.count(a) + every.count(b)) / 2
    ) ** 2,
}  # fmt: skip


@pytest.mark.parametrize("level", list(DISTANCES))
@pytest.mark.parametrize("seed", range(4))
def test_alpha_agrees_with_a_count_of_all_pairs(level, seed):
    rng = np.random.default_rng(seed)
    ratings = np.clip(rng.integers(1, 6, 15) + rng.integers(-1, 2, (4, 15)), 1, 5).astype(float)
    ratings[rng.random(ratings.shape) < 0.3] = NAN
    expected = alpha_slowly(ratings, DISTANCES[level])
    assert krippendorff_alpha(ratings, level=level) == pytest.approx(expected)


def test_alpha_is_one_in_full_agreement_and_below_zero_against_each_other():
    assert krippendorff_alpha([[1, 2, 5], [1, 2, 5]]) == 1
    # Two values, two units, always different: 1 - (4 / 4) / (2 * 2 * 2 / (4 * 3)) = -1 / 2
    assert krippendorff_alpha([[1, 2], [2, 1]]) == pytest.approx(-1 / 2)


@pytest.mark.parametrize("ratings", [[[3, 3], [3, 3]], [[1, NAN], [NAN, 2]], np.empty((0, 0))])
def test_alpha_is_undefined_where_nothing_can_differ(ratings):
    assert np.isnan(krippendorff_alpha(ratings))


def test_what_has_no_alpha_is_refused():
    with pytest.raises(ValueError, match="level must be one of"):
        krippendorff_alpha(EXAMPLE, level="ratio")
    with pytest.raises(ValueError, match=r"ratings must be \(r, u\)"):
        krippendorff_alpha([1, 2, 3])


# What ratings say


def make_table(**ratings):
    """A table of ratings: for each method a grid, a row a rater and a column a query."""
    return pd.DataFrame(
        [
            {"rater": f"r{r}", "query": f"q{q}", "method": method, "rating": value}
            for method, grid in ratings.items()
            for r, row in enumerate(grid)
            for q, value in enumerate(row)
        ]
    )


def test_means_are_over_all_ratings_without_skips():
    table = make_table(A=[[5, 4, NAN], [3, NAN, NAN]], B=[[1, 1, 2], [2, 2, 1]])
    found = summarise_ratings(table, seed=0, resamples=200)
    assert list(found) == ["A", "B"]
    assert found["A"]["value"] == pytest.approx(12 / 3)
    assert [found["A"][name] for name in ("n", "raters", "queries")] == [3, 2, 2]
    assert found["B"]["value"] == pytest.approx(9 / 6)
    low, high = found["B"]["ci95"]
    assert 1 <= low < 9 / 6 < high <= 2


def test_intervals_count_raters_as_well_as_queries():
    """Raters who lean apart make it wide, however many queries there are."""
    rng = np.random.default_rng(0)
    queries = rng.normal(0, 0.1, 200)
    leaning = np.array([[-1.0], [1.0], [-0.5], [0.5]])
    table = make_table(A=3 + leaning + queries, B=3 + 0 * leaning + queries)
    found = summarise_ratings(table, seed=0)
    widths = {method: np.diff(found[method]["ci95"])[0] for method in found}
    assert widths["A"] > 1
    assert widths["B"] < 0.1
    # Independent draws of four leanings: the deviation of their mean is 0.79 / 2.
    assert widths["A"] == pytest.approx(2 * 1.96 * 0.79 / 2, rel=0.2)


def test_methods_are_compared_within_rater_and_query():
    a = [[5, 4, NAN], [2, 1, 3]]
    b = [[4, 3, 1], [1, NAN, 2]]
    found = compare_methods(make_table(A=a, B=b), "A", "B", seed=0, resamples=500)
    assert found["value"] == pytest.approx(1)
    assert found["ci95"] == pytest.approx([1, 1])
    assert [found[name] for name in ("n", "raters", "queries")] == [4, 2, 3]
    assert found["p_value"] == pytest.approx(2 / 2**3)  # of 8 flips of three queries' signs
    back = compare_methods(make_table(A=a, B=b), "B", "A", seed=0, resamples=500)
    assert back["value"] == pytest.approx(-1)


def test_agreement_is_over_what_each_method_found_for_each_query():
    table = make_table(A=[[1, 5, 3], [1, 5, NAN]], B=[[2, 4, 4], [2, 4, 4]])
    found = measure_agreement(table, seed=0, resamples=50)
    assert (found["value"], found["ci95"]) == (1, [1, 1])
    assert (found["n"], found["raters"]) == (5, 2)


def test_interval_of_the_agreement_is_that_of_drawing_queries_anew():
    rng = np.random.default_rng(1)
    taste = rng.integers(1, 6, size=(2, 12))  # of each method's answers to 12 queries
    grids = {m: np.clip(row + rng.integers(-1, 2, size=(3, 12)), 1, 5) * 1.0
             for m, row in zip("AB", taste, strict=True)}  # fmt: skip
    found = measure_agreement(make_table(**grids), seed=0, resamples=400)
    alphas = []
    for _ in range(400):
        drawn = rng.integers(12, size=12)
        units = np.concatenate([grid[:, drawn] for grid in grids.values()], axis=1)
        alphas.append(krippendorff_alpha(units, level="ordinal"))
    assert np.ptp(found["ci95"]) > 0.05
    assert found["ci95"] == pytest.approx(np.percentile(alphas, [2.5, 97.5]), abs=0.06)


def test_a_p_value_that_is_only_bounded_says_so():
    lead = np.random.default_rng(2).normal(2, 0.1, (2, 40))
    found = compare_methods(make_table(A=3 + lead, B=3 + 0 * lead), "A", "B", seed=0, resamples=100)
    assert found["p_is_floor"] is True and found["p_value"] == pytest.approx(2 / 101)


def test_agreement_of_a_lone_rater_is_unknown():
    found = measure_agreement(make_table(A=[[1, 5, 3]]), seed=0)
    assert found == {"value": None, "ci95": None, "n": 0, "raters": 1}


def test_ratings_are_counted_by_method_from_one_to_five():
    counts = count_ratings(make_table(B=[[5, 5, 1]], A=[[NAN, 2, 2]]))
    assert counts.index.tolist() == ["B", "A"]
    assert counts.to_numpy().tolist() == [[1, 0, 0, 0, 2], [0, 2, 0, 0, 0]]


@pytest.fixture
def simulated(tmp_path):
    book = RatingStore(tmp_path / "simulated.sqlite", a_study(simulated=True))
    of_method = {"A": 0.1, "B": 0.3, "C": 0.9, "D": 0.5}
    quality = {pair: of_method[pair[1]] for pair in product(book.study.queries, METHODS)}
    simulate_ratings(book, quality, raters=8, seed=0, skips=0.1)
    return book


def test_simulated_raters_fill_their_sheets_and_prefer_what_is_better(simulated):
    table = simulated.read()
    assert len(table) == 8 * 16
    assert set(table["rater"]) == {f"simulated {i}" for i in range(1, 9)}
    assert 0 < table["rating"].isna().mean() < 0.25
    means = summarise_ratings(table, seed=0, resamples=200)
    assert max(means, key=lambda method: means[method]["value"]) == "C"
    assert compare_methods(table, "C", "A", seed=0, resamples=200)["ci95"][0] > 0
    assert measure_agreement(table, seed=0, resamples=50)["value"] > 0.3


def test_nothing_is_made_up_in_a_study_of_people(book):
    with pytest.raises(ValueError, match="is one of people"):
        simulate_ratings(book, {}, raters=1, seed=0)
    assert book.read().empty


def test_a_book_without_ratings_says_nothing(book):
    table = book.read()
    assert summarise_ratings(table, seed=0) == {}
    assert measure_agreement(table, seed=0)["value"] is None
    assert count_ratings(table).empty
    assert repr(book) == "<RatingBook trial: 0 ratings by 0>"
