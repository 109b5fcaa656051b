"""Checks of IntelliFix (S3), a classifier on private images; its run times apart."""

from collections.abc import Iterator

import pandas as pd

from regionlab.claims.arithmetic import harmonic_mean, is_near, widest_average_gap
from regionlab.claims.shares import judge_share
from regionlab.claims.table import CONSISTENT, DIFFERENT, IMPOSSIBLE, Judgement, value_of

SCALED, RAW = "Proposed SVM (Scaled)", "SVM (RBF, Raw)"
MODELS = ("Dummy (Most-Frequent)", "Logistic Regression", RAW, SCALED)
CLASSES = ("A", "A (2)", "A (3)", "A (5)", "A (9)", "A (11)", "A (14)", "A (25)")
AVERAGES = ("Macro Avg", "Wtd. Avg")


def _test_size(claims: pd.DataFrame) -> int:
    return int(value_of(claims, "S3", "table I", "Test Set Size", "Value"))


def _supports(claims: pd.DataFrame) -> list[int]:
    return [int(value_of(claims, "S3", "table III", name, "Support")) for name in CLASSES]


def _class_f1_range(claims: pd.DataFrame) -> list[float]:
    return [value_of(claims, "S3", "text", "class F1", end) for end in ("least", "greatest")]


def counts_add_up(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Add up training and test set, and divide by the number of classes (tables I and II)."""
    total, classes, test = (
        value_of(claims, "S3", "table I", row, "Value")
        for row in ("Total Images", "Number of Categories", "Test Set Size")
    )
    train = value_of(claims, "S3", "text", "training set", "images")
    yield Judgement(
        [*(("S3", "table I", row, "Value") for row in ("Total Images", "Test Set Size")),
         ("S3", "text", "training set", "images")],
        CONSISTENT if train + test == total else IMPOSSIBLE,
        f"{train:.0f} + {test:.0f} = {train + test:.0f}, of {total:.0f} images.",
    )  # fmt: skip
    for row, part in (("Test share", test), ("Train share", train)):
        share = value_of(claims, "S3", "table I", row, "Value")
        yield Judgement(
            [("S3", "table I", row, "Value")],
            CONSISTENT if round(share * total) == part else IMPOSSIBLE,
            f"{train:.0f} + {test:.0f} = {train + test:.0f}, and {share:.0%} of {total:.0f} is "
            f"{share * total:.0f}.",
        )
    repeated = ("S3", "table II", "Test Set Size", "Value")
    again = value_of(claims, *repeated)
    yield Judgement(
        [repeated],
        CONSISTENT if again == test else IMPOSSIBLE,
        f"Table I has {test:.0f} test images, table II {again:.0f}.",
    )
    place = ("S3", "table I", "Avg. Images per Class", "Value")
    holds = abs(total / classes - value_of(claims, *place)) < 1
    yield Judgement(
        [place],
        CONSISTENT if holds else IMPOSSIBLE,
        f"{total:.0f} / {classes:.0f} = {total / classes:.1f}.",
    )


def folders_fill_the_data_set(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Multiply the images of a folder by the number of folders."""
    places = [("S3", "text", "images per folder", end) for end in ("low", "high")]
    low, high = (value_of(claims, *place) for place in places)
    total, classes = (
        value_of(claims, "S3", "table I", row, "Value")
        for row in ("Total Images", "Number of Categories")
    )
    yield Judgement(
        places,
        CONSISTENT if low * classes <= total <= high * classes else IMPOSSIBLE,
        f"{classes:.0f} folders of {low:.0f} to {high:.0f} hold {low * classes:,.0f} to "
        f"{high * classes:,.0f} images, not {total:,.0f}; {low:.0f} to {high:.0f} fits the test "
        "images of a class.",
    )


def dummy_counts_the_classes(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Count the classes from the Dummy row: always saying one of K has recall 1/K."""
    model = "Dummy (Most-Frequent)"
    columns = ("Macro Prec.", "Macro Rec.", "Macro F1")
    places = [("S3", "table IV", model, column) for column in columns]
    accuracy = value_of(claims, "S3", "table IV", model, "Accuracy")
    stated = ("S3", "table I", "Number of Categories", "Value")
    classes, recall = int(value_of(claims, *stated)), value_of(claims, *places[1])
    implied = round(1 / recall)
    numbers = accuracy / implied, 1 / implied, harmonic_mean(accuracy, 1) / implied
    listed = ", ".join(f"{number:.2%}" for number in numbers)
    yield Judgement(
        [stated, *places],
        CONSISTENT if implied == classes else IMPOSSIBLE,
        f"Always one of {implied} classes gives macro precision, recall and F1 of {listed}; of "
        f"{classes} classes the recall would be {1 / classes:.2%}, printed is {recall:.2%}.",
    )
    chance = ("S3", "text", "chance", "accuracy")
    yield Judgement(
        [chance],
        CONSISTENT if is_near(1 / classes, value_of(claims, *chance), 0.0005) else IMPOSSIBLE,
        f"1/{classes} = {1 / classes:.2%}.",
    )


def accuracy_is_a_whole_number_of_images(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Multiply each accuracy by the size of the test set (tables II and IV)."""
    n = _test_size(claims)
    for model in MODELS:
        place = ("S3", "table IV", model, "Accuracy")
        repeats = [
            ("S3", "table II", "Overall Accuracy", "Value"),
            ("S3", "abstract", "SVM", "accuracy"),
        ]
        yield from judge_share(claims, [place, *repeats] if model == SCALED else [place], n)


def recall_is_a_whole_number_of_images(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Multiply the recall of each class by its support (table III)."""
    for name, support in zip(CLASSES, _supports(claims), strict=True):
        yield from judge_share(claims, [("S3", "table III", name, "Recall")], support)


def weighted_recall_is_accuracy(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare accuracy with weighted recall, which is the same by definition."""
    place = ("S3", "table III", "Wtd. Avg", "Recall")
    recall = value_of(claims, *place)
    accuracy = value_of(claims, "S3", "table II", "Overall Accuracy", "Value")
    yield Judgement(
        [place],
        CONSISTENT if is_near(recall, accuracy, 0.0001) else IMPOSSIBLE,
        f"Weighted by support, recall is accuracy by definition: {recall:.2%} against "
        f"{accuracy:.2%}.",
    )


def weighted_mean_lies_between(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare the weighted F1 with the least and greatest F1 of a class."""
    low, high = _class_f1_range(claims)
    for table, row, column in (
        ("table II", "Weighted Avg F1", "Value"),
        ("table III", "Wtd. Avg", "F1-Score"),
    ):
        weighted = value_of(claims, "S3", table, row, column)
        yield Judgement(
            [("S3", table, row, column)],
            CONSISTENT if low <= weighted <= high else IMPOSSIBLE,
            f"The weighted mean is {weighted:.4f}, while every class has {low:.4f} to {high:.4f}.",
        )


def balanced_classes_have_close_averages(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare macro and weighted F1, which nearly equal supports hold together."""
    supports = _supports(claims)
    low, high = _class_f1_range(claims)
    widest = widest_average_gap((low, high), (min(supports), max(supports)))
    macro, weighted = (value_of(claims, "S3", "table III", row, "F1-Score") for row in AVERAGES)
    gap = abs(macro - weighted)
    yield Judgement(
        [("S3", "table III", "Wtd. Avg", "F1-Score")],
        CONSISTENT if gap <= widest + 0.0001 else IMPOSSIBLE,
        f"Macro and weighted F1 differ by {gap:.4f}; supports of {min(supports)} to "
        f"{max(supports)} and class F1 of {low:.4f} to {high:.4f} allow {widest:.4f}.",
    )


def class_f1_follows(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute the F1 of each class from its precision and recall (table III)."""
    for name in CLASSES:
        places = [("S3", "table III", name, column) for column in ("Precision", "F1-Score")]
        f1 = _f1_of(claims, name)
        printed = value_of(claims, *places[1])
        yield Judgement(
            places,
            CONSISTENT if is_near(f1, printed, 0.0001) else IMPOSSIBLE,
            f"F1 of precision and recall is {f1:.4f}; printed is {printed:.4f}.",
        )
    ends = [("S3", "text", "class F1", end) for end in ("least", "greatest")]
    shown = [value_of(claims, "S3", "table III", name, "F1-Score") for name in CLASSES]
    low, high = _class_f1_range(claims)
    yield Judgement(
        ends,
        CONSISTENT if low <= min(shown) and max(shown) <= high else IMPOSSIBLE,
        f"The eight classes shown have {min(shown):.4f} to {max(shown):.4f}.",
    )


def _f1_of(claims: pd.DataFrame, row: str) -> float:
    return harmonic_mean(
        *(value_of(claims, "S3", "table III", row, c) for c in ("Precision", "Recall"))
    )


def average_f1_is_a_mean(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute F1 from the macro averages: the macro F1 is a mean over classes."""
    places = [
        ("S3", "table III", "Macro Avg", "F1-Score"),
        ("S3", "table II", "Macro Avg F1-Score", "Value"),
        ("S3", "table IV", SCALED, "Macro F1"),
        ("S3", "abstract", "SVM", "macro F1"),
    ]
    f1, printed = _f1_of(claims, "Macro Avg"), value_of(claims, *places[0])
    same = is_near(f1, printed, 0.00005)
    yield Judgement(
        places,
        DIFFERENT if same else CONSISTENT,
        f"F1 of the macro precision and recall is {f1:.4f}, printed is {printed:.4f}: "
        + ("it was taken from the averages, as equation 9 says, " if same else "it was not taken ")
        + ("not averaged over classes." if same else "from the averages."),
    )


def table_iv_repeats_table_ii(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare macro precision and recall, which are printed three times."""
    for short, long, column in (("Prec.", "Precision", "Precision"), ("Rec.", "Recall", "Recall")):
        places = [
            ("S3", "table II", f"Macro Avg {long}", "Value"),
            ("S3", "table III", "Macro Avg", column),
            ("S3", "table IV", SCALED, f"Macro {short}"),
        ]
        values = [value_of(claims, *place) for place in places]
        listed = ", ".join(f"{value:.4f}" for value in values)
        yield Judgement(
            places,
            CONSISTENT if max(values) - min(values) < 1e-9 else IMPOSSIBLE,
            f"Macro {column.lower()} is {listed} in tables II to IV.",
        )


def supports_fit_the_test_set(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare supports with the images of a class, and compute what is left for the others.

    A stratified split takes the same share of every class. What the text gives as the images
    of a folder, too few for the data set, fits the test images of a class.
    """
    n = _test_size(claims)
    classes = value_of(claims, "S3", "table I", "Number of Categories", "Value")
    supports = _supports(claims)
    low, high = (
        value_of(claims, "S3", "text", "images per folder", end) for end in ("low", "high")
    )
    rest = (n - sum(supports)) / (classes - len(supports))
    for name, support in zip(CLASSES, supports, strict=True):
        yield Judgement(
            [("S3", "table III", name, "Support")],
            CONSISTENT if low <= support <= high and rest > 0 else IMPOSSIBLE,
            f"{n:,} test images are {n / classes:.1f} a class, split by class; {support} lies "
            f"{'within' if low <= support <= high else 'outside'} the {low:.0f} to {high:.0f} "
            f"that the text gives for a folder. The eight classes shown have "
            f"{sum(supports) / 8:.1f} test images on average, which leaves {rest:.1f} for each of "
            f"the other {classes - 8:.0f}; of 26 classes it would be "
            f"{(n - sum(supports)) / 18:.1f}.",
        )
    totals = [("S3", "table III", row, "Support") for row in AVERAGES]
    same = all(value_of(claims, *place) == n for place in totals)
    yield Judgement(totals, CONSISTENT if same else IMPOSSIBLE, f"The test set has {n:,} images.")


def gains_are_differences(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute the gains over raw SVM and over every baseline from table IV."""
    accuracy = {m: value_of(claims, "S3", "table IV", m, "Accuracy") for m in MODELS}
    gain = ("S3", "text", "scaled over raw SVM", "gain")
    found = accuracy[SCALED] - accuracy[RAW]
    yield Judgement(
        [gain],
        CONSISTENT if is_near(found, value_of(claims, *gain), 0.0005) else IMPOSSIBLE,
        f"{accuracy[SCALED]:.2%} - {accuracy[RAW]:.2%} is {100 * found:.2f} points.",
    )
    least = ("S3", "text", "over all baselines", "gain, above")
    found = accuracy[SCALED] - max(accuracy[m] for m in MODELS[:3])
    yield Judgement(
        [least],
        CONSISTENT if found > value_of(claims, *least) else IMPOSSIBLE,
        f"The least gain is {100 * found:.2f} points.",
    )


CHECKS = [
    counts_add_up,
    folders_fill_the_data_set,
    dummy_counts_the_classes,
    accuracy_is_a_whole_number_of_images,
    recall_is_a_whole_number_of_images,
    weighted_recall_is_accuracy,
    weighted_mean_lies_between,
    balanced_classes_have_close_averages,
    class_f1_follows,
    average_f1_is_a_mean,
    table_iv_repeats_table_ii,
    supports_fit_the_test_set,
    gains_are_differences,
]
