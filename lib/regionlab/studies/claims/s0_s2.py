"""Checks of SAM-CLIP Search (S0), CLIP-DB (S1) and CLIP-FAISS (S2).

A check yields judgements. A contradiction between several numbers is charged to the one
that follows from the others, or else to all; the reason names those it was computed from.
"""

from collections.abc import Iterator

import pandas as pd

from regionlab.studies.claims.rules import (
    chance_of_hit,
    least_first_precision,
    precision_after_first,
    saved_time,
)
from regionlab.studies.claims.table import (
    CONSISTENT,
    DIFFERENT,
    IMPOSSIBLE,
    Judgement,
    Place,
    value_of,
)

METHODS = ("ViT+KNN", "DIR", "CLIP-only", "SAM-CLIP")

# What a row of S0's table 2 is called in table 5, in table 1 and in the abstract.
REPEATS = {
    "Recall@5": ("Avg. Recall@5", "Recall@5", "Recall@5"),
    "Precision@5": ("Avg. Precision@5", "Precision", "Precision@5"),
    "Inference Time": ("Inference Time", "avg. inference Time", ""),
    "mAP": ("", "mAP", ""),
    "Top-1 Similarity": ("", "", "top-1 similarity"),
}

# ViT-B/32 with OpenAI's weights on the Karpathy test split, 5,000 images of COCO, as
# published with open_clip: text to image, and image to text.
CLIP_COCO_RECALL_AT_5 = (0.559, 0.750)

SAM_ENCODER_SECONDS = 0.15  # of ViT-H on an A100, by its authors


def same_number_in_every_table(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare tables 1, 2, 5 and the abstract, which print the same results."""
    for metric in REPEATS:
        for method in METHODS:
            first, *others = places = repeats_of(metric, method)
            values = [value_of(claims, *place) for place in places]
            if others and len(set(values)) == 1:
                yield Judgement(others, CONSISTENT, f"Repeats {metric} of {first[1]}.")
            elif others:
                printed = ", ".join(
                    f"{value:g} ({place[1]})" for value, place in zip(values, places, strict=True)
                )
                yield Judgement(places, IMPOSSIBLE, f"{metric} of {method} is {printed}.")


def repeats_of(metric: str, method: str) -> list[Place]:
    """Return every place where S0 prints this metric of this method, table 2 first."""
    places = [("S0", "table 2", metric, method)]
    in_table_5, in_table_1, in_abstract = REPEATS[metric]
    if in_table_5:
        places.append(("S0", "table 5", method, in_table_5))
    if in_table_1 and method == "SAM-CLIP":
        places.append(("S0", "table 1", "COCO", in_table_1))
    if in_abstract and method == "SAM-CLIP":
        places.append(("S0", "abstract", method, in_abstract))
    return places


def similarity_is_no_percentage(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare a similarity that table 1 prints in percent, table 2 as a number."""
    place = ("S0", "table 1", "COCO", "top-1 Sim")
    here = value_of(claims, *place)
    there = value_of(claims, "S0", "table 2", "Top-1 Similarity", "SAM-CLIP")
    if here == there:
        yield Judgement([place], CONSISTENT, f"Repeats {there:g} of table 2.")
    else:
        yield Judgement(
            [place],
            IMPOSSIBLE,
            f"As printed it is {here:g}, but {there:g} in table 2: a slip of the unit.",
        )


def hits_bound_precision(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare the share of relevant answers with the share of queries that have one."""
    pairs = [(("S0", "table 1", d, "Recall@5"), ("S0", "table 1", d, "Precision"))
             for d in ("COCO", "Flickr30K", "Fashion200K")]  # fmt: skip
    pairs += zip(_row("Recall@5"), _row("Precision@5"), strict=True)
    pairs.append([("S0", "table 5", "SegNet", f"Avg. {m}@5") for m in ("Recall", "Precision")])
    for pair in pairs:
        hit, precision = (value_of(claims, *place) for place in pair)
        verdict = CONSISTENT if precision <= hit else IMPOSSIBLE
        sign = "not above" if precision <= hit else "above"
        yield Judgement(pair, verdict, f"Precision@5 {precision:.3f} is {sign} Recall@5 {hit:.3f}.")


def _row(metric: str) -> list[Place]:
    return [("S0", "table 2", metric, method) for method in METHODS]


def first_rank_follows_from_five(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare Precision@1 with its least value beside Recall@5 and Precision@5."""
    for method in METHODS:
        hit, precision = (
            value_of(claims, "S0", "table 2", metric, method)
            for metric in ("Recall@5", "Precision@5")
        )
        least = least_first_precision(hit, precision, 5)
        place = ("S0", "table 2", "Precision@1", method)
        printed = value_of(claims, *place)
        yield Judgement(
            [place],
            CONSISTENT if printed >= least else DIFFERENT,
            f"A query with a relevant answer among five but not first has at most four: Recall@5 "
            f"{hit:.3f} and Precision@5 {precision:.3f} of one relevance need Precision@1 of 5 x "
            f"{precision:.3f} - 4 x {hit:.3f} = {least:.3f} or more; printed is {printed:.3f}.",
        )


def first_answer_is_hit_or_miss(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare Recall@1 and Precision@1: is the first answer right? (section 4.1)."""
    for method in METHODS:
        places = [("S0", "table 2", metric, method) for metric in ("Recall@1", "Precision@1")]
        recall, precision = (value_of(claims, *place) for place in places)
        same, fewer = recall == precision, recall < precision
        yield Judgement(
            places,
            CONSISTENT if same else DIFFERENT if fewer else IMPOSSIBLE,
            "Both say whether the first answer is right, so they are equal, or Precision@1 is "
            "higher if more images are relevant than the correct one; printed are Recall@1 "
            f"{recall:.3f} and Precision@1 {precision:.3f}.",
        )


def later_ranks_are_no_better(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare rank 1 with ranks 2 to 5: a ranking should begin with its best."""
    for method in METHODS:
        first = value_of(claims, "S0", "table 2", "Precision@1", method)
        five = value_of(claims, "S0", "table 2", "Precision@5", method)
        later = precision_after_first(first, five, 5)
        yield Judgement(
            repeats_of("Precision@5", method),
            CONSISTENT if later <= first else DIFFERENT,
            f"Precision@1 {first:.3f} and Precision@5 {five:.3f} make {later:.3f} at ranks 2 to "
            "5: if these are better than rank 1, it was judged by another relevance.",
        )


def abstract_reports_the_mean(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare the accuracy in the abstract with the rows and the mean of table 3."""
    place = ("S0", "abstract", "SAM-CLIP", "retrieval accuracy")
    printed = value_of(claims, *place)
    column = "Retrieval Accuracy (Top-5)"
    rows = {p: value_of(claims, "S0", "table 3", p, column) for p in ("box", "point", "text")}
    mean = sum(rows.values()) / 3
    if abs(printed - mean) < 0.005:
        yield Judgement([place], CONSISTENT, f"The mean of table 3 is {mean:.3f}.")
    else:
        same = [prompt for prompt, value in rows.items() if value == printed]
        which = f"the row of {same[0]} prompts" if same else "no row of table 3"
        yield Judgement(
            [place], DIFFERENT, f"{printed:.2f} is {which}; the mean of table 3 is {mean:.3f}."
        )


def box_prompts_agree_between_tables(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare box prompts in table 3 with SAM-CLIP in table 2."""
    places = [("S0", "table 3", "box", c) for c in SIMILARITY_AND_ACCURACY]
    similarity, accuracy = (value_of(claims, *place) for place in places)
    others = [
        value_of(claims, "S0", "table 2", metric, "SAM-CLIP")
        for metric in ("Top-1 Similarity", "Recall@5")
    ]
    same = [similarity, accuracy] == others
    yield Judgement(
        places,
        CONSISTENT if same else DIFFERENT,
        f"Box prompts have {similarity:g} and {accuracy:g}, SAM-CLIP in table 2 {others[0]:g} and "
        f"{others[1]:g}: the same queries would agree in both or in neither.",
    )


SIMILARITY_AND_ACCURACY = ("Average Top 1 Similarity", "Retrieval Accuracy (Top-5)")


def time_is_saved_over_every_baseline(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare “nearly 30 %” with the time saved over each baseline of table 5."""
    place = ("S0", "text", "reduction of inference time", "about")
    after = value_of(claims, "S0", "table 5", "SAM-CLIP", "Inference Time")
    saved = {
        method: saved_time(value_of(claims, "S0", "table 5", method, "Inference Time"), after)
        for method in ("ViT+KNN", "DIR", "CLIP-only", "SegNet")
    }
    printed = value_of(claims, *place)
    holds = all(share > printed - 0.05 for share in saved.values())
    listed = ", ".join(f"{method} {share:+.0%}" for method, share in saved.items())
    yield Judgement(
        [place], CONSISTENT if holds else DIFFERENT, f"Time saved by table 5: over {listed}."
    )


def recall_gains_are_in_range(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute the gains in Recall@5 from table 2."""
    places = [("S0", "text", "improvement of Recall@5", end) for end in ("low", "high")]
    low, high = (value_of(claims, *place) for place in places)
    ours = value_of(claims, "S0", "table 2", "Recall@5", "SAM-CLIP")
    gains = [ours - value_of(claims, "S0", "table 2", "Recall@5", m) for m in METHODS[:3]]
    holds = abs(min(gains) - low) < 0.005 and abs(max(gains) - high) < 0.005
    yield Judgement(
        places,
        CONSISTENT if holds else IMPOSSIBLE,
        f"Table 2 gives {100 * min(gains):.1f} to {100 * max(gains):.1f} percentage points.",
    )


def segmentation_takes_time(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compute what time is left for SAM beside CLIP alone."""
    ours, clip = (
        value_of(claims, "S0", "table 2", "Inference Time", m) for m in ("SAM-CLIP", "CLIP-only")
    )
    yield Judgement(
        repeats_of("Inference Time", "SAM-CLIP"),
        CONSISTENT if ours - clip >= SAM_ENCODER_SECONDS else DIFFERENT,
        f"{ours - clip:.2f} s more than CLIP alone has to pay for the mask. SAM's image encoder "
        f"takes about {SAM_ENCODER_SECONDS} s on an A100: below that it ran before, uncounted.",
    )


def clip_matches_its_published_recall(claims: pd.DataFrame) -> Iterator[Judgement]:
    """Compare CLIP-only on COCO with what is published for CLIP on COCO."""
    printed = value_of(claims, "S0", "table 2", "Recall@5", "CLIP-only")
    text, image = CLIP_COCO_RECALL_AT_5
    near = min(abs(printed - text), abs(printed - image)) < 0.02
    yield Judgement(
        repeats_of("Recall@5", "CLIP-only"),
        CONSISTENT if near else DIFFERENT,
        f"Published for ViT-B/32 on 5,000 images of COCO are {text:.3f} (text to image) and "
        f"{image:.3f} (image to text); {printed:.3f} is another task.",
    )


S0_CHECKS = [
    same_number_in_every_table,
    similarity_is_no_percentage,
    hits_bound_precision,
    first_rank_follows_from_five,
    first_answer_is_hit_or_miss,
    later_ranks_are_no_better,
    abstract_reports_the_mean,
    box_prompts_agree_between_tables,
    time_is_saved_over_every_baseline,
    recall_gains_are_in_range,
    segmentation_takes_time,
    clip_matches_its_published_recall,
]


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


S1_S2_CHECKS = [
    neighbours_beat_chance,
    recall_grows_with_k,
    query_image_finds_itself,
    histogram_separates_queries,
    ten_answers_find_what_five_do,
]
