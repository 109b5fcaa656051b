"""Checks of composed retrieval (S4), whose numbers are those of Baldrati et al. (2022)."""

from collections.abc import Iterator

import pandas as pd

from regionlab.claims.arithmetic import could_be_share, is_near
from regionlab.claims.shares import judge_share
from regionlab.claims.table import CONSISTENT, DIFFERENT, IMPOSSIBLE, Judgement, step_of, value_of

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
            could_be_share(v, n, step_of(claims, *p)) for v, p in zip(values, places, strict=True)
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


CHECKS = [
    averages_are_means,
    recalls_are_whole_numbers_of_queries,
    precision_of_one_target,
    splits_are_the_published_ones,
]
