"""Every number that the papers print, the arithmetic it has to obey, and its verdict."""

import json
from fractions import Fraction
from math import isnan

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from regionlab.studies import claims
from regionlab.studies.claims import CHECKS
from regionlab.studies.claims import rules as arithmetic
from regionlab.studies.claims.rules import judge_share
from regionlab.studies.claims.table import COLUMNS, PLACE, UNITS, step_of
from regionlab.viz.charts import draw_dumbbells, draw_verdicts

CONSISTENT, DIFFERENT, IMPOSSIBLE, UNKNOWN = claims.VERDICTS
HEADER = ",".join(COLUMNS) + "\n"
GOOD = "S1,table 1,MNIST,top-1,93.8,%,train as gallery,09_label_by_neighbours:top1\n"


@pytest.fixture(scope="module")
def table():
    return claims.load_claims()


@pytest.fixture(scope="module")
def audited(table):
    return claims.audit(table)


@pytest.fixture(scope="module")
def judged(table):
    return claims.run_checks(table)


def change(table, **printed):
    """Return the table with other numbers, given as {"S3|table I|row|column": "1926"}."""
    changed = table.copy()
    for place, number in printed.items():
        place = tuple(place.split("|"))
        assert place in changed.index, place
        changed.loc[place, ["printed", "value"]] = [number, float(number)]
    return changed


def verdicts_of(table, check, place):
    (function,) = [c for c in CHECKS if c.__name__ == check.replace(" ", "_")]
    place = tuple(place.split("|"))
    return [judged.verdict for judged in function(table) if place in judged.places]


# --- the table ------------------------------------------------------------------------


def test_all_five_papers_are_there_with_the_size_of_their_tables(table):
    counts = table.groupby(level=["paper", "table"]).size()
    assert set(counts.index.get_level_values("paper")) == set(claims.PAPERS)
    assert counts["S0", "table 2"] == 10 * 4
    assert counts["S3", "table III"] == 10 * 4
    assert counts["S3", "table IV"] == 4 * 4
    assert counts["S4", "CIRR"] == 8 * 7
    assert counts["S4", "FashionIQ"] == 8 * 4 * 2


@pytest.mark.parametrize(
    ("place", "printed"),
    [
        (("S0", "table 2", "NDCG@5", "SAM-CLIP"), "0.79"),
        (("S0", "table 5", "SegNet", "Avg. Recall@5"), "84.0"),
        (("S1", "table 1", "CIFAR10", "Top-5 Accuracy"), "66.5"),
        (("S2", "table 3", "Image-to-Image Retrieval", "Recall@5"), "0.91"),
        (("S3", "table III", "A (14)", "Support"), "78"),
        (("S4", "CIRR", "RN50x4 FT Combiner", "Recall@50"), "96.87"),
        (("S4", "CIRR", "RN50x4 Combiner", "Precision@3"), "92.15"),
        (("S4", "FashionIQ", "RN50 Sum", "Toptee R@50"), "42.84"),
    ],
)
def test_numbers_are_kept_as_printed(table, place, printed):
    assert table.at[place, "printed"] == printed
    assert table.at[place, "value"] == float(printed)


def test_values_are_in_the_unit_of_the_results(table):
    assert claims.value_of(table, "S0", "table 2", "mAP", "DIR") == pytest.approx(0.743)
    assert claims.value_of(table, "S0", "table 2", "NDCG@5", "DIR") == 0.71
    chasing = ("S1", "text", "Tom chases Jerry", "results of four that chase")
    assert claims.value_of(table, *chasing) == 0.75


def test_last_digit_is_that_of_the_print(table):
    assert step_of(table, "S4", "FashionIQ", "RN50 FT Sum", "Average R@50") == pytest.approx(1e-4)
    assert step_of(table, "S4", "FashionIQ", "RN50 Combiner", "Average R@50") == pytest.approx(1e-4)
    assert step_of(table, "S3", "table I", "Test Set Size", "Value") == 1


def test_a_claim_that_is_not_there_is_named(table):
    with pytest.raises(KeyError, match="'table 9'"):
        claims.value_of(table, "S0", "table 9", "mAP", "DIR")


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("CLIP Embedding Extraction", "85 to 120"),
        ("Cosine Similarity Search", "below 5"),
        ("Embedding Archive Size", "19.8"),
    ],
)
def test_rows_of_one_number_or_a_range_are_shown_as_printed(table, row, shown):
    assert claims.show_printed(table, "S3", "table V", row) == shown


def test_percentages_are_at_most_a_hundred(table):
    percent = table[table["unit"].isin(["%", "points"])]
    assert percent["value"].between(0, 100).all()
    assert table.loc[table["unit"] == "1", "value"].between(0, 1).all()


def test_keys_name_a_notebook_of_the_design(table):
    notebooks = {key.partition(":")[0].rpartition("/")[2] for key in table["key"] if key}
    assert notebooks == {
        "02_search_text_and_image",
        "04_compare_prompts",
        "06_compare_methods",
        "08_svm_probe",
        "09_label_by_neighbours",
        "10_composed_search",
        "11_engines_and_scale",
        "15_search_video",
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD + GOOD, "line 3: repeats an earlier row"),
        (GOOD.replace("S1", "S9"), "line 2: paper is none of"),
        (GOOD.replace("table 1", ""), "line 2: part of the place is empty"),
        (GOOD.replace("93.8", "93,8".replace(",", ";")), "line 2: value is no finite number"),
        (GOOD.replace("93.8", ""), "line 2: value is no finite number"),
        (GOOD.replace("93.8", "inf"), "line 2: value is no finite number"),
        (GOOD.replace("%", "percent"), "line 2: unit is none of"),
        (GOOD.replace("train as gallery", ""), "line 2: no remark"),
        (GOOD.replace("09_label_by_neighbours:", ""), "line 2: key is not"),
        (GOOD.replace("neighbours:top1", "neighbours: "), "line 2: key is not"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, rows, message):
    file = tmp_path / "claims.csv"
    file.write_text(HEADER + rows)
    with pytest.raises(ValueError, match=message):
        claims.load_claims(file)


def test_other_columns_are_refused(tmp_path):
    file = tmp_path / "claims.csv"
    file.write_text(HEADER.replace("remark,", "") + GOOD)
    with pytest.raises(ValueError, match="has the columns"):
        claims.load_claims(file)


def test_a_good_row_is_read(tmp_path):
    file = tmp_path / "claims.csv"
    file.write_text(HEADER + GOOD + GOOD.replace("09_", "mnist/09_").replace("MNIST", "B"))
    assert claims.load_claims(file)["value"].tolist() == [93.8, 93.8]


# --- arithmetic, by hand --------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "n", "decimals", "possible"),
    [
        (0.67, 3, 2, True),  # 2/3, rounded
        (0.66, 3, 2, True),  # 2/3, cut off
        (0.68, 3, 2, False),
        (0.65, 3, 2, False),
        (0.5, 3, 1, False),
        (0.3, 5, 1, False),  # 0.4 would be printed so, were it cut off: the end is open
        (0.3, 4, 1, True),  # 0.25, rounded: this end is not
        (0.5, 4, 1, True),
        (0.0, 3, 2, True),
        (1.0, 3, 2, True),
    ],
)
def test_a_share_is_a_whole_number_out_of_n(printed, n, decimals, possible):
    assert arithmetic.grim_consistent(printed, n, 10**-decimals) is possible


def test_shares_are_told_as_by_trying_all_of_them():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, decimals = int(rng.integers(2, 200)), int(rng.integers(2, 5))
        printed, step = round(float(rng.random()), decimals), Fraction(1, 10**decimals)
        exact = Fraction(str(printed))
        tried = any(exact - step / 2 <= Fraction(k, n) < exact + step for k in range(n + 1))
        assert arithmetic.grim_consistent(printed, n, float(step)) is tried, (printed, n)


def test_nearest_share():
    assert arithmetic.nearest_share(0.7, 3) == 2 / 3


def test_harmonic_mean():
    assert arithmetic.harmonic_mean(1 / 2, 1 / 4) == pytest.approx(1 / 3)


def test_chance_of_five_neighbours_of_ten_classes():
    assert arithmetic.chance_of_hit(10, 1) == pytest.approx(0.1)
    assert arithmetic.chance_of_hit(10, 5) == pytest.approx(1 - 0.9**5)
    assert round(arithmetic.chance_of_hit(10, 5), 2) == 0.41


def test_least_first_precision_is_reached_by_misses_at_the_first_rank_only():
    first_wrong, all_right, nothing = [0, 1, 1, 1, 1], [1] * 5, [0] * 5
    lists = np.array([first_wrong, all_right, all_right, nothing])
    hit, five = lists.any(1).mean(), lists.mean()
    assert arithmetic.least_first_precision(hit, five, 5) == pytest.approx(lists[:, 0].mean())


def test_no_ranking_is_below_the_least_first_precision():
    rng = np.random.default_rng(1)
    for share in (0.1, 0.5, 0.9):
        lists = rng.random((50, 7, 5)) < share
        for answers in lists:
            least = arithmetic.least_first_precision(answers.any(1).mean(), answers.mean(), 5)
            assert answers[:, 0].mean() >= least - 1e-12


def test_precision_after_the_first_rank():
    answers = np.array([[0, 1, 1], [1, 1, 0]])
    after = arithmetic.precision_after_first(answers[:, 0].mean(), answers.mean(), 3)
    assert after == pytest.approx(answers[:, 1:].mean()) == 3 / 4


def test_saved_time():
    assert arithmetic.saved_time(1.21, 0.71) == pytest.approx(50 / 121)
    assert arithmetic.saved_time(0.5, 1.0) == -1


def test_no_weighted_mean_is_further_from_the_plain_one_than_the_bound():
    rng = np.random.default_rng(2)
    for few, many in ((70, 80), (1, 100)):
        bound = arithmetic.widest_average_gap((0.2, 0.6), (few, many))
        worst = 0.0
        for share in np.linspace(0.05, 0.95, 91):
            ends = rng.permutation(1000) < share * 1000
            supports, values = np.where(ends, many, few), np.where(ends, 0.2, 0.6)
            worst = max(worst, abs(np.average(values, weights=supports) - values.mean()))
        assert 0.97 * bound < worst <= bound


# --- the checks -----------------------------------------------------------------------

# check, the place it judges, its verdict on the paper, a change that turns it, its verdict then
TURNS = [
    ("same number in every table", "S0|table 5|DIR|Avg. Recall@5", CONSISTENT,
     {"S0|table 5|DIR|Avg. Recall@5": "83.5"}, IMPOSSIBLE),
    ("same number in every table", "S0|abstract|SAM-CLIP|Precision@5", CONSISTENT,
     {"S0|table 1|COCO|Precision": "87.2"}, IMPOSSIBLE),
    ("similarity is no percentage", "S0|table 1|COCO|top-1 Sim", IMPOSSIBLE,
     {"S0|table 1|COCO|top-1 Sim": "78"}, CONSISTENT),
    ("hits bound precision", "S0|table 1|Fashion200K|Precision", CONSISTENT,
     {"S0|table 1|Fashion200K|Precision": "90.2"}, IMPOSSIBLE),
    ("hits bound precision", "S0|table 2|Recall@5|CLIP-only", CONSISTENT,
     {"S0|table 2|Recall@5|CLIP-only": "83.1"}, IMPOSSIBLE),
    # 5 x 0.871 - 4 x 0.893 = 0.783
    ("first rank follows from five", "S0|table 2|Precision@1|SAM-CLIP", DIFFERENT,
     {"S0|table 2|Precision@1|SAM-CLIP": "78.4"}, CONSISTENT),
    ("first answer is hit or miss", "S0|table 2|Recall@1|DIR", IMPOSSIBLE,
     {"S0|table 2|Recall@1|DIR": "63.3"}, CONSISTENT),
    ("first answer is hit or miss", "S0|table 2|Precision@1|DIR", IMPOSSIBLE,
     {"S0|table 2|Recall@1|DIR": "60.0"}, DIFFERENT),
    ("later ranks are no better", "S0|table 5|ViT+KNN|Avg. Precision@5", DIFFERENT,
     {"S0|table 2|Precision@5|ViT+KNN": "60.4"}, CONSISTENT),
    ("abstract reports the mean", "S0|abstract|SAM-CLIP|retrieval accuracy", DIFFERENT,
     {"S0|abstract|SAM-CLIP|retrieval accuracy": "89.7"}, CONSISTENT),
    ("box prompts agree between tables", "S0|table 3|box|Retrieval Accuracy (Top-5)", DIFFERENT,
     {"S0|table 3|box|Retrieval Accuracy (Top-5)": "89.3"}, CONSISTENT),
    ("time is saved over every baseline", "S0|text|reduction of inference time|about", DIFFERENT,
     {"S0|table 5|CLIP-only|Inference Time": "1.1", "S0|table 5|ViT+KNN|Inference Time": "1.1"},
     CONSISTENT),
    ("recall gains are in range", "S0|text|improvement of Recall@5|high", CONSISTENT,
     {"S0|text|improvement of Recall@5|high": "9"}, IMPOSSIBLE),
    ("segmentation takes time", "S0|table 5|SAM-CLIP|Inference Time", DIFFERENT,
     {"S0|table 2|Inference Time|CLIP-only": "0.5"}, CONSISTENT),
    ("clip matches its published recall", "S0|table 5|CLIP-only|Avg. Recall@5", DIFFERENT,
     {"S0|table 2|Recall@5|CLIP-only": "75.1"}, CONSISTENT),
    ("neighbours beat chance", "S1|table 1|CIFAR10|Top-1 Accuracy", DIFFERENT,
     {"S1|table 1|CIFAR10|Top-1 Accuracy": "95", "S1|table 1|CIFAR10|Top-5 Accuracy": "99"},
     CONSISTENT),
    ("neighbours beat chance", "S1|table 1|MNIST|Top-5 Accuracy", CONSISTENT,
     {"S1|table 1|MNIST|Top-5 Accuracy": "93.7"}, IMPOSSIBLE),
    ("recall grows with k", "S2|table 3|Text-to-Image Retrieval|Recall@5", CONSISTENT,
     {"S2|table 3|Text-to-Image Retrieval|Recall@3": "0.90"}, IMPOSSIBLE),
    ("query image finds itself", "S2|table 3|Image-to-Image Retrieval|mAP", DIFFERENT,
     {"S2|table 3|Image-to-Image Retrieval|Recall@3": "1"}, CONSISTENT),
    ("histogram separates queries", "S2|figure 4|most cosine similarities|low", DIFFERENT,
     {"S2|figure 4|most cosine similarities|low": "0.2"}, CONSISTENT),
    ("ten answers find what five do", "S2|figure 10|CLIP-FAISS|Top-10 accuracy, about", DIFFERENT,
     {"S2|figure 10|CLIP-FAISS|Top-10 accuracy, about": "90"}, CONSISTENT),
    ("counts add up", "S3|table I|Test Set Size|Value", CONSISTENT,
     {"S3|text|training set|images": "7700"}, IMPOSSIBLE),
    ("counts add up", "S3|table I|Avg. Images per Class|Value", CONSISTENT,
     {"S3|table I|Avg. Images per Class|Value": "75"}, IMPOSSIBLE),
    ("folders fill the data set", "S3|text|images per folder|high", IMPOSSIBLE,
     {"S3|text|images per folder|high": "357"}, CONSISTENT),
    ("folders fill the data set", "S3|text|images per folder|low", IMPOSSIBLE,
     {"S3|text|images per folder|low": "357", "S3|text|images per folder|high": "356"},
     IMPOSSIBLE),
    ("dummy counts the classes", "S3|table IV|Dummy (Most-Frequent)|Macro Rec.", IMPOSSIBLE,
     {"S3|table IV|Dummy (Most-Frequent)|Macro Rec.": "3.70"}, CONSISTENT),
    ("dummy counts the classes", "S3|text|chance|accuracy", CONSISTENT,
     {"S3|text|chance|accuracy": "3.9"}, IMPOSSIBLE),
    # 1902 / 1926 = 0.98754, 1903 / 1926 = 0.98806
    ("accuracy is a whole number of images", "S3|table II|Overall Accuracy|Value", IMPOSSIBLE,
     {"S3|table IV|Proposed SVM (Scaled)|Accuracy": "98.75"}, CONSISTENT),
    ("accuracy is a whole number of images", "S3|table IV|SVM (RBF, Raw)|Accuracy", CONSISTENT,
     {"S3|table IV|SVM (RBF, Raw)|Accuracy": "8.28"}, IMPOSSIBLE),
    # 73 / 74 = 0.98649
    ("recall is a whole number of images", "S3|table III|A|Recall", IMPOSSIBLE,
     {"S3|table III|A|Recall": "0.9865"}, CONSISTENT),
    ("weighted recall is accuracy", "S3|table III|Wtd. Avg|Recall", IMPOSSIBLE,
     {"S3|table III|Wtd. Avg|Recall": "0.9876"}, CONSISTENT),
    ("weighted mean lies between", "S3|table II|Weighted Avg F1|Value", IMPOSSIBLE,
     {"S3|table II|Weighted Avg F1|Value": "95.63"}, CONSISTENT),
    ("balanced classes have close averages", "S3|table III|Wtd. Avg|F1-Score", IMPOSSIBLE,
     {"S3|table III|Wtd. Avg|F1-Score": "0.9800"}, CONSISTENT),
    ("class f1 follows", "S3|table III|A (9)|F1-Score", CONSISTENT,
     {"S3|table III|A (9)|F1-Score": "0.9860"}, IMPOSSIBLE),
    ("class f1 follows", "S3|text|class F1|least", CONSISTENT,
     {"S3|text|class F1|least": "0.9600"}, IMPOSSIBLE),
    ("average f1 is a mean", "S3|abstract|SVM|macro F1", DIFFERENT,
     {"S3|table III|Macro Avg|F1-Score": "0.9801"}, CONSISTENT),
    ("table iv repeats table ii", "S3|table IV|Proposed SVM (Scaled)|Macro Prec.", CONSISTENT,
     {"S3|table II|Macro Avg Precision|Value": "97.40"}, IMPOSSIBLE),
    ("supports fit the test set", "S3|table III|A|Support", CONSISTENT,
     {"S3|table III|A|Support": "1500"}, IMPOSSIBLE),
    ("supports fit the test set", "S3|table III|Wtd. Avg|Support", CONSISTENT,
     {"S3|table III|Wtd. Avg|Support": "1925"}, IMPOSSIBLE),
    ("gains are differences", "S3|text|scaled over raw SVM|gain", CONSISTENT,
     {"S3|text|scaled over raw SVM|gain": "91.5"}, IMPOSSIBLE),
    ("gains are differences", "S3|text|over all baselines|gain, above", CONSISTENT,
     {"S3|table IV|SVM (RBF, Raw)|Accuracy": "8.77"}, IMPOSSIBLE),
    # 9630 x 512 x 4 = 19,722,240
    ("archive holds the vectors", "S3|table V|Embedding Archive Size|about", CONSISTENT,
     {"S3|table V|Embedding Archive Size|about": "19.7"}, IMPOSSIBLE),
    ("request takes its parts", "S3|table V|End-to-End Request Processing|high", CONSISTENT,
     {"S3|table V|End-to-End Request Processing|high": "110"}, IMPOSSIBLE),
    ("indexing takes its images", "S3|table V|Offline Indexing|high", DIFFERENT,
     {"S3|table V|Offline Indexing|high": "15"}, CONSISTENT),
    # (39.99 + 33.81 + 41.41) / 3 = 38.403
    ("averages are means", "S4|FashionIQ|RN50x4 FT Combiner|Average R@10", IMPOSSIBLE,
     {"S4|FashionIQ|RN50x4 FT Combiner|Average R@10": "38.40"}, CONSISTENT),
    ("averages are means", "S4|FashionIQ|RN50 Sum|Average R@50", CONSISTENT,
     {"S4|FashionIQ|RN50 Sum|Average R@50": "38.18"}, IMPOSSIBLE),
    # 888 / 4181 = 0.21239
    ("recalls are whole numbers of queries", "S4|CIRR|RN50 Sum|Recall@1", CONSISTENT,
     {"S4|CIRR|RN50 Sum|Recall@1": "21.20"}, IMPOSSIBLE),
    ("precision of one target", "S4|CIRR|RN50 Sum|Precision@2", DIFFERENT,
     {"S4|CIRR|RN50 Sum|Precision@2": "49.99", "S4|CIRR|RN50 Sum|Precision@3": "33.33"},
     CONSISTENT),
    ("splits are the published ones", "S4|text|CIRR|test share", DIFFERENT,
     {"S4|text|CIRR|test share": "11"}, CONSISTENT),
    ("splits are the published ones", "S4|text|FashionIQ|triplets", CONSISTENT,
     {"S4|text|FashionIQ|triplets": "30000"}, DIFFERENT),
]  # fmt: skip


@pytest.mark.parametrize(("check", "place", "verdict", "change_to", "then"), TURNS)
def test_check_judges_the_paper_and_turns_with_the_numbers(
    table, check, place, verdict, change_to, then
):
    assert verdicts_of(table, check, place) == [verdict]
    assert verdicts_of(change(table, **change_to), check, place) == [then]


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("recall gains are in range", "4.2 to 8.1 percentage points"),
        ("time is saved over every baseline", "ViT+KNN +20%, DIR +41%, CLIP-only -6%, SegNet +32%"),
        ("first rank follows from five", "5 x 0.871 - 4 x 0.893 = 0.783 or more; printed is 0.719"),
        ("later ranks are no better", "0.719 and Precision@5 0.871 make 0.909"),
        ("abstract reports the mean", "row of box prompts; the mean of table 3 is 0.897"),
        ("segmentation takes time", "0.04 s more than CLIP alone"),
        ("counts add up", "7704 + 1926 = 9630, and 20% of 9630 is 1926"),
        ("counts add up", "9630 / 27 = 356.7"),
        ("folders fill the data set", "27 folders of 70 to 80 hold 1,890 to 2,160"),
        (
            "dummy counts the classes",
            "26 classes gives macro precision, recall and F1 of 0.16%, 3.85%",
        ),
        ("accuracy is a whole number of images", "1902.12; the nearest whole number, 1902"),
        ("supports fit the test set", "74.9 test images on average, which leaves 69.8"),
        ("supports fit the test set", "of 26 classes it would be 73.7"),
        ("gains are differences", "98.76% - 8.26% is 90.50 points"),
        ("gains are differences", "least gain is 90.50 points"),
        ("archive holds the vectors", "9,630 x 512 x 4 bytes = 19.7 MB"),
        ("indexing takes its images", "25 to 37 ms an image"),
        ("averages are means", "The mean of 39.99, 33.81, 41.41 is 38.40, printed is 38.32"),
        ("splits are the published ones", "4,181 of 36,554 triplets, 11.4%"),
    ],
)
def test_reasons_show_their_sums(judged, check, reason):
    reasons = judged.loc[judged["check"] == check, "reason"]
    assert reasons.str.contains(reason, regex=False).any(), reasons.tolist()


def name_checks_of(table):
    """Return each claim's checks."""
    judged = {}
    for check in CHECKS:
        for judgement in check(table):
            for place in judgement.places:
                judged.setdefault(place, set()).add(check)
    return judged


def is_consistent(table, checks, place):
    said = [j.verdict for check in checks for j in check(table) if place in j.places]
    return bool(said) and set(said) == {CONSISTENT}


def test_no_claim_is_consistent_whatever_number_it_prints(table, audited):
    factors = (3, 0.3, 1.3, 0.8, 10, 0.1, *np.geomspace(0.4, 2.2, 24))
    checks, never = name_checks_of(table), []
    for place in audited.index[audited["verdict"] == CONSISTENT]:
        printed = table.at[place, "printed"]
        digits = len(printed.partition(".")[2])
        numbers = (f"{factor * float(printed):.{digits}f}" for factor in factors)
        others = [number for number in numbers if number != printed]
        changes = (change(table, **{"|".join(place): number}) for number in others)
        if all(is_consistent(changed, checks[place], place) for changed in changes):
            never.append(place)
    assert never == []


def test_a_number_that_takes_no_part_in_a_check_is_not_called_consistent(table, audited):
    search = ("S3", "table V", "Cosine Similarity Search", "below")
    assert audited.at[search, "verdict"] == DIFFERENT
    slow = claims.audit(change(table, **{"|".join(search): "5000"}))
    assert slow.at[search, "verdict"] == IMPOSSIBLE


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("S3|table II|Test Set Size|Value", "3"),
        ("S3|table I|Train share|Value", "7"),
        ("S3|table III|A (9)|Support", "900"),
        ("S3|table III|A (9)|Support", "40"),
        ("S3|table V|Cosine Similarity Search|below", "31"),
    ],
)
def test_checks_fail_where_the_number_itself_is_wrong(table, place, number):
    changed = claims.audit(change(table, **{place: number}))
    assert changed.at[tuple(place.split("|")), "verdict"] == IMPOSSIBLE


@pytest.mark.parametrize(("n", "chance"), [(4181, "0.63"), (2038, "0.31"), (1926, "0.29")])
def test_shares_say_how_likely_a_random_number_passes(judged, n, chance):
    reasons = judged.loc[judged["reason"].str.contains(f" of {n:,} is "), "reason"]
    weak = f"passes with probability {chance}: by itself this says little"
    assert len(reasons) and reasons.str.contains(weak).all()


def test_a_share_of_few_samples_is_not_called_weak(judged):
    (reason,) = judged.loc[(judged["column"] == "Recall") & (judged["row"] == "A"), "reason"]
    assert reason.endswith("passes with probability 0.01.")


def test_chance_of_a_share_is_how_many_of_all_printed_numbers_pass():
    for n, decimals in ((37, 3), (415, 4), (4181, 4)):
        step = 10**-decimals
        printed = np.arange(0, 10**decimals) * step
        passing = np.mean([arithmetic.grim_consistent(p, n, step) for p in printed])
        assert arithmetic.chance_of_share(n, step) == pytest.approx(passing, abs=0.02)
    assert arithmetic.chance_of_share(10_000, 1e-4) == 1


def test_a_share_that_any_number_could_be_is_not_judged(table):
    place = ("S4", "CIRR", "RN50 Sum", "Recall@1")
    assert list(judge_share(table, [place], 4181)) and not list(judge_share(table, [place], 6667))


def test_images_are_counted_as_entries_and_as_names(judged):
    said = judged.loc[(judged["row"] == "FashionIQ") & (judged["column"] == "images"), "reason"]
    assert said.str.contains("77,683 images in nine lists, 74,381 different names").all()


def test_a_data_set_named_in_a_row_is_measured_on_that_data_set(table):
    names = {"COCO": "coco", "MNIST": "mnist", "CIFAR10": "cifar10", "Flickr30K": "flickr30k",
             "Fashion200K": "fashion200k", "CIRR": "cirr", "FashionIQ": "fashioniq"}  # fmt: skip
    for place, key in table.loc[table["key"] != "", "key"].items():
        named = [folder for name, folder in names.items() if name in (place[1], place[2])]
        assert [key.partition(":")[0].rpartition("/")[0]] == (named or [""]), place


def test_every_check_is_tried_above():
    assert {turn[0] for turn in TURNS} == {check.__name__.replace("_", " ") for check in CHECKS}


def test_checks_judge_only_claims_of_the_table_and_say_why(table, judged):
    assert pd.MultiIndex.from_frame(judged[PLACE]).isin(table.index).all()
    assert set(judged["verdict"]) == {CONSISTENT, DIFFERENT, IMPOSSIBLE}
    assert judged["reason"].str.contains(r"\d").all()


def test_all_recalls_of_cirr_fit_its_validation_set_but_not_its_test_set(table):
    cirr = table.query("paper == 'S4' and table == 'CIRR'")
    fits = {
        n: sum(arithmetic.grim_consistent(v / 100, n, 1e-4) for v in cirr["value"])
        for n in (4181, 4148)
    }
    assert fits[4181] == 56 and fits[4148] < 45


# --- verdicts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "verdict", "reason"),
    [
        (("S4", "FashionIQ", "RN50 Sum", "Dress R@10"), CONSISTENT, "17.60% of 2,017 is 354.99"),
        (("S0", "table 2", "MAE (Pixel Diff)", "DIR"), DIFFERENT, "Not defined for retrieval"),
        (("S3", "table III", "Wtd. Avg", "Recall"), IMPOSSIBLE, "95.78% against 98.76%"),
        (("S0", "table 4", "DIR", "Average user rating"), UNKNOWN, "Needs people"),
    ],
)
def test_each_kind_of_verdict_has_its_reason(audited, place, verdict, reason):
    assert audited.at[place, "verdict"] == verdict
    assert reason in audited.at[place, "reason"]


def test_the_gravest_verdict_counts_with_all_its_reasons(audited):
    weighted = audited.loc[("S3", "table III", "Wtd. Avg", "F1-Score")]
    assert weighted["verdict"] == IMPOSSIBLE
    assert "every class has 0.9562" in weighted["reason"]
    assert "allow 0.0005" in weighted["reason"]


def test_a_passed_check_is_not_named_beside_a_failed_one(audited):
    accuracy = audited.loc[("S0", "table 2", "Recall@5", "CLIP-only")]
    assert accuracy["verdict"] == DIFFERENT
    assert "is not above" not in accuracy["reason"]


def test_audit_keeps_the_claims_and_their_order(table, audited):
    assert audited.index.equals(table.index)
    assert set(audited["verdict"]) == set(claims.VERDICTS)
    assert (audited["reason"] != "").all()


# --- measured here --------------------------------------------------------------------


def save(folder, name, results):
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps({"record": {}, "results": results}))


def test_measured_values_stand_beside_the_papers(table, tmp_path):
    measured = {"value": 0.9, "ci95": [0.8, 0.95], "n": 12}
    save(tmp_path, "06_compare_methods", {"methods": {"ViT+KNN": {"hit@5": measured}}})
    found = claims.measure(table, tmp_path).loc[("S0", "table 2", "Recall@5", "ViT+KNN")]
    assert found["paper_value"] == pytest.approx(0.812)
    assert (found["measured"], found["low"], found["high"], found["n"]) == (0.9, 0.8, 0.95, 12)
    assert found["status"] == "measured"


def test_a_plain_number_is_measured_without_interval(table, tmp_path):
    save(tmp_path, "11_engines_and_scale", {"runtime": {"vectors, MB": 19.7}})
    found = claims.measure(table, tmp_path).loc[
        ("S3", "table V", "Embedding Archive Size", "about")
    ]
    assert (found["measured"], found["paper_value"]) == (19.7, 19.8)
    assert isnan(found["low"])


def test_another_profile_is_looked_up_in_its_folder(table, tmp_path):
    results = {"methods": {"SAM-CLIP": {"mAP": 0.5}}}
    save(tmp_path, "flickr30k/06_compare_methods", results)
    found = claims.measure(table, tmp_path)["measured"].dropna()
    assert found.to_dict() == {("S0", "table 1", "Flickr30K", "mAP"): 0.5}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"record": {}}', '{"results": [1]}'])
def test_what_is_not_measured_yet_never_fails(table, tmp_path, text):
    (tmp_path / "06_compare_methods.json").write_text(text)
    found = claims.measure(table, tmp_path)
    assert set(found["status"]) == {"not measured yet"}
    assert found["measured"].isna().all()
    assert len(found) == (table["key"] != "").sum()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", 1),
        ("b.c", {"value": 2}),
        ("b.words, own", 3),
        ("d.e.f", 4),
        ("b", None),
        ("b.c.value", 2),
        ("text", None),
        ("yes", None),
        ("missing", None),
        ("a.b", None),
    ],
)
def test_dotted_names_lead_to_numbers_only(name, found):
    results = {
        "a": 1, "b": {"c": {"value": 2}, "words, own": 3}, "d.e": {"f": 4}, "text": "x",
        "yes": True,
    }  # fmt: skip
    assert claims.find_quantity(results, name) == found


def test_units_of_the_table_are_known(table):
    assert set(table["unit"]) <= set(UNITS)


# --- figures --------------------------------------------------------------------------


def test_bars_hold_every_number_once(audited):
    fig, ax = plt.subplots()
    draw_verdicts(ax, audited)
    widths = sum(bar.get_width() for bar in ax.patches)
    plt.close(fig)
    assert widths == pytest.approx(5)  # a whole for each paper
    texts = " ".join(text.get_text() for text in ax.texts)
    assert sum(int(word) for word in texts.replace(",", "").split() if word.isdigit()) == 321


def test_dumbbells_join_the_papers_value_with_ours(table, tmp_path):
    save(tmp_path, "02_search_text_and_image", {"text_to_image": {"mAP": 0.25, "hit@3": 0.5}})
    found = claims.measure(table, tmp_path).query("status == 'measured'")
    fig, ax = plt.subplots()
    draw_dumbbells(ax, found)
    plt.close(fig)
    paper, here = ax.get_lines()[:2]
    assert list(paper.get_xdata()) == [0.73, 0.81] and list(here.get_xdata()) == [0.25, 0.5]
    assert ax.get_yticklabels()[0].get_text() == "table 3, Text-to-Image Retrieval, mAP"
