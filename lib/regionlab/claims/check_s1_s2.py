"""Checks of CLIP-DB (S1) and CLIP-FAISS (S2)."""

from collections.abc import Iterator

import pandas as pd

from regionlab.claims.arithmetic import chance_of_hit
from regionlab.claims.table import CONSISTENT, DIFFERENT, IMPOSSIBLE, Judgement, value_of

# Zero-shot accuracy of ViT-L/14 with OpenAI's weights, as published with CLIP_benchmark.
CLIP_ZERO_SHOT = {"MNIST": 0.768, "CIFAR10": 0.957}

# Highest cosines of matching text and image with OpenAI's weights, about (the modality
# gap, Liang et al. 2022).
TEXT_IMAGE_COSINE = 0.35


def neighbours_beat_chance(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare S1 table 1 with chance and with the model's zero-shot accuracy."""
    for data, zero_shot in CLIP_ZERO_SHOT.items():
        places = [("S1", "table 1", data, f"Top-{k} Accuracy") for k in (1, 5)]
        top1, top5 = (value_of(claims, *place) for place in places)
        possible = top1 <= top5 <= 5 * top1
        likely = top1 >= zero_shot - 0.05
        yield Judgement(
            places,
            IMPOSSIBLE if not possible else CONSISTENT if likely else DIFFERENT,
            f"Chance is {chance_of_hit(10, 1):.0%} and {chance_of_hit(10, 5):.0%}, ViT-L/14 "
            f"without any example reaches {zero_shot:.1%}; {top1:.1%} with labelled neighbours "
            + ("fits." if likely else "speaks for damaged input."),
        )


def recall_grows_with_k(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare Recall@3 and Recall@5 in S2 table 3: more answers cannot find less."""
    for row in ("Text-to-Image Retrieval", "Image-to-Image Retrieval"):
        places = [("S2", "table 3", row, f"Recall@{k}") for k in (3, 5)]
        three, five = (value_of(claims, *place) for place in places)
        yield Judgement(
            places,
            CONSISTENT if three <= five else IMPOSSIBLE,
            f"Recall@3 {three:g}, Recall@5 {five:g}.",
        )


def query_image_finds_itself(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Judge S2's image queries, whose own image counts as an answer (figure 8)."""
    row = "Image-to-Image Retrieval"
    places = [("S2", "table 3", row, column) for column in ("mAP", "Recall@3", "Recall@5")]
    three = value_of(claims, *places[1])
    yield Judgement(
        places,
        DIFFERENT if three < 1 else CONSISTENT,
        "The exact match comes first, so as “how frequently relevant images appear” Recall@3 is "
        f"1, not {three:g}; as the share of all relevant images it counts an answer that nobody "
        "asks for. Left out here.",
    )


def histogram_separates_queries(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare the similarities of S2 figure 4 with those of text and image."""
    places = [("S2", "figure 4", "most cosine similarities", end) for end in ("low", "high")]
    low, high = (value_of(claims, *place) for place in places)
    yield Judgement(
        places,
        DIFFERENT if low > TEXT_IMAGE_COSINE else CONSISTENT,
        f"{low:g} to {high:g} for text and image queries in one: with OpenAI's weights a text "
        f"and its image reach about {TEXT_IMAGE_COSINE}, and an image reaches 1 by finding "
        "itself. Notebook 02 draws them apart.",
    )


def ten_answers_find_what_five_do(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare S2's accuracy in ten answers (figure 10) with recall in five (table 3)."""
    place = ("S2", "figure 10", "CLIP-FAISS", "Top-10 accuracy, about")
    ten = value_of(claims, *place)
    five = value_of(claims, "S2", "table 3", "Text-to-Image Retrieval", "Recall@5")
    yield Judgement(
        [place],
        CONSISTENT if ten >= five else DIFFERENT,
        f"Ten answers hold what five do, so {ten:.2f} beside Recall@5 {five:.2f} was measured on "
        "something else than table 3.",
    )


CHECKS = [
    neighbours_beat_chance,
    recall_grows_with_k,
    query_image_finds_itself,
    histogram_separates_queries,
    ten_answers_find_what_five_do,
]
