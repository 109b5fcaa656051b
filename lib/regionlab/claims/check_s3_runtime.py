"""Checks of IntelliFix's (S3) run times and sizes, table V."""

from collections.abc import Iterator

import pandas as pd

from regionlab.claims.table import CONSISTENT, DIFFERENT, IMPOSSIBLE, Judgement, value_of


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


CHECKS = [archive_holds_the_vectors, request_takes_its_parts, indexing_takes_its_images]
