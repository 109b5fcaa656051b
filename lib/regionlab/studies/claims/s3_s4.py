"""Checks of IntelliFix (S3) and of composed retrieval (S4).

S3 is a classifier on private images; its run times and sizes (table V) are checked apart. S4's
numbers are those of Baldrati et al. (2022).
"""

from collections.abc import Iterator

import pandas as pd

from regionlab.studies.claims.rules import (
    grim_consistent,
    harmonic_mean,
    is_near,
    judge_share,
    widest_average_gap,
)
from regionlab.studies.claims.table import (
    CONSISTENT,
    DIFFERENT,
    IMPOSSIBLE,
    Judgement,
    step_of,
    value_of,
)

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


S3_CHECKS = [
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


def archive_holds_the_vectors(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute the bytes of the vectors in float32 (table V)."""
    n, d = (
        value_of(claims, "S3", "table I", row, "Value")
        for row in ("Total Images", "Embedding Dimension")
    )
    place = ("S3", "table V", "Embedding Archive Size", "about")
    megabytes, printed = 4 * n * d / 1e6, value_of(claims, *place)
    yield Judgement(
        [place, ("S3", "table I", "Embedding Dimension", "Value")],
        CONSISTENT if megabytes <= printed <= 1.1 * megabytes else IMPOSSIBLE,
        f"{n:,.0f} x {d:.0f} x 4 bytes = {megabytes:.1f} MB, and the paths.",
    )


def request_takes_its_parts(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare a request with its parts and with what the text promises (table V)."""
    whole, parts = "End-to-End Request Processing", "CLIP Embedding Extraction"
    places = [("S3", "table V", row, end) for row in (parts, whole) for end in ("low", "high")]
    embed_low, embed_high, low, high = (value_of(claims, *place) for place in places)
    promise = ("S3", "text", whole, "below")
    below = value_of(claims, *promise)
    holds = embed_low <= low and embed_high <= high < below
    yield Judgement(
        [*places, promise],
        CONSISTENT if holds else IMPOSSIBLE,
        f"Embedding {embed_low:.0f} to {embed_high:.0f} ms fits into {low:.0f} to {high:.0f} ms, "
        f"below {below:.0f} ms; other hardware and model than here.",
    )
    search = ("S3", "table V", "Cosine Similarity Search", "below")
    slack = min(low - embed_low, high - embed_high)
    if value_of(claims, *search) > slack:  # less says nothing: nearly any time would pass
        yield Judgement(
            [search],
            IMPOSSIBLE,
            f"A request takes {slack:.0f} ms more than its embedding, too little for a search of "
            f"{value_of(claims, *search):g} ms.",
        )


def indexing_takes_its_images(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare minutes for all images with milliseconds for one (table V)."""
    places = [("S3", "table V", "Offline Indexing", end) for end in ("low", "high")]
    low, high = (value_of(claims, *place) for place in places)
    n = value_of(claims, "S3", "table I", "Total Images", "Value")
    one = value_of(claims, "S3", "table V", "CLIP Embedding Extraction", "low")
    each = [60e3 * minutes / n for minutes in (low, high)]
    yield Judgement(
        places,
        CONSISTENT if one <= each[1] else DIFFERENT,
        f"{each[0]:.0f} to {each[1]:.0f} ms an image in batches of 16, against {one:.0f} ms or "
        "more for one alone: a batch has to be so much faster on the same CPU.",
    )


S3_RUNTIME_CHECKS = [
    archive_holds_the_vectors,
    request_takes_its_parts,
    indexing_takes_its_images,
]


# Counted in the published files: queries of the validation sets, CIRR's triplets of two
# splits (those for training were not at hand), and totals.
FASHIONIQ_QUERIES = {"Shirt": 2038, "Dress": 2017, "Toptee": 1961}
CIRR_TRIPLETS = {"validation": 4181, "test": 4148}
PUBLISHED = {
    ("FashionIQ", "triplets"): (30134, "have {:,}"),
    ("FashionIQ", "images"): (
        77683,
        "list {:,} images in nine lists, 74,381 different names: 3,302 lie in several categories",
    ),
    ("CIRR", "images"): (21551, "have {:,}, no name twice"),
}
VARIANTS = [
    f"{backbone} {how}"
    for backbone in ("RN50", "RN50x4")
    for how in ("Sum", "FT Sum", "Combiner", "FT Combiner")
]


def averages_are_means(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute the averages over the three categories of FashionIQ."""
    for variant in VARIANTS:
        for k in (10, 50):
            place = ("S4", "FashionIQ", variant, f"Average R@{k}")
            cells = [
                value_of(claims, "S4", "FashionIQ", variant, f"{name} R@{k}")
                for name in FASHIONIQ_QUERIES
            ]
            printed, mean = value_of(claims, *place), sum(cells) / 3
            yield Judgement(
                [place],
                CONSISTENT if is_near(mean, printed, 0.0001) else IMPOSSIBLE,
                f"The mean of {', '.join(f'{100 * c:.2f}' for c in cells)} is {100 * mean:.2f}, "
                f"printed is {100 * printed:.2f}.",
            )


def recalls_are_whole_numbers_of_queries(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Multiply each recall by the published number of validation queries."""
    for variant in VARIANTS:
        for name, n in FASHIONIQ_QUERIES.items():
            for k in (10, 50):
                yield from judge_share(claims, [("S4", "FashionIQ", variant, f"{name} R@{k}")], n)
        for k in (1, 5, 10, 50):
            yield from judge_share(
                claims, [("S4", "CIRR", variant, f"Recall@{k}")], CIRR_TRIPLETS["validation"]
            )


def precision_of_one_target(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare “Precision@K” on CIRR with 1/K, its most with one target a query."""
    n = CIRR_TRIPLETS["validation"]
    for variant in VARIANTS:
        places = [("S4", "CIRR", variant, f"Precision@{k}") for k in (1, 2, 3)]
        values = [value_of(claims, *place) for place in places]
        fits = all(
            grim_consistent(v, n, step_of(claims, *p)) for v, p in zip(values, places, strict=True)
        )
        possible = all(v <= 1 / k for k, v in enumerate(values, 1))
        yield Judgement(
            places,
            CONSISTENT if possible else DIFFERENT,
            f"With one target precision@2 is at most 50 %, printed is {values[1]:.2%}; as "
            "Recall_subset@K, which the original calls it, it "
            f"{'is' if fits else 'is not'} a whole number of {n:,} validation queries.",
        )


def splits_are_the_published_ones(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare the sizes of the data sets and the split of CIRR with their files."""
    for (data, what), (count, told) in PUBLISHED.items():
        place = ("S4", "text", data, what)
        same = value_of(claims, *place) == count
        yield Judgement(
            [place],
            CONSISTENT if same else DIFFERENT,
            f"The published files {told.format(count)}.",
        )
    total = round(value_of(claims, "S4", "text", "CIRR", "triplets"))
    rest = {"training": total - sum(CIRR_TRIPLETS.values())}
    for split, count in (CIRR_TRIPLETS | rest).items():
        place = ("S4", "text", "CIRR", f"{split} share")
        printed = value_of(claims, *place)
        yield Judgement(
            [place],
            CONSISTENT if abs(printed - count / total) < 0.005 else DIFFERENT,
            f"The published split leaves {count:,} of {total:,} triplets, {count / total:.1%}.",
        )


S4_CHECKS = [
    averages_are_means,
    recalls_are_whole_numbers_of_queries,
    precision_of_one_target,
    splits_are_the_published_ones,
]
