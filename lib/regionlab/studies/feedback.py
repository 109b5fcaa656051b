"""What are a few judgements worth? Rankings measured round by round, with a simulated user.

The user of the standard protocol knows the truth and sees a page of results a round: the first
`page` images not judged yet, which are all judged, liked where relevant. After each round the
ranking is measured in two ways, neither of which rewards moving up what was liked already:

- On the **residual collection** (Salton and Buckley 1990): the images not judged so far. Since
  these become fewer and harder with every round, and others for every method, the ranking
  without feedback is measured on the very same images beside it. So the two are comparable
  within a round, and their difference is what feedback is worth; the values of two rounds are
  not. A query without a relevant image left has no value, NaN.
- **Frozen** (Chang, Cirillo and Razon 1971): over the whole gallery, where the judged images
  keep the places at which they were shown and the others follow. The images are the same in all
  rounds and for all methods, so that everything is comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regionlab.index.index import Index
from regionlab.metrics.ranking import average_precision, judge_hits
from regionlab.metrics.stats import compare_paired, mean_with_ci
from regionlab.search.feedback import FeedbackSession
from regionlab.search.query import Part, Query
from regionlab.util.progress import progress

if TYPE_CHECKING:
    from regionlab.data.collection import Collection
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Segmenter


MEASURES = ("feedback", "none", "frozen")


@dataclass(frozen=True, eq=False)
class Questions:
    """Queries of one kind.

    Attributes
    ----------
    queries
        (q,) of them.
    search
        Options of `search_regions`.
    exclude
        (q,) rows of the queries' own images, -1 for words.
    """

    queries: list[Query]
    search: dict[str, Any]
    exclude: np.ndarray


def ask_three_ways(
    collection: "Collection",
    index: Index,
    objects: pd.DataFrame,
    segmenter: "Segmenter",
    encoder: "Encoder",
    *,
    encoding: str,
    words: Sequence[str],
    templates: Sequence[str],
    seed: int,
    noise: float = 0.1,
) -> dict[str, Questions]:
    """Ask for objects by region (a hasty box), by their whole image and by their words.

    Regions are compared with regions, whole images and words with whole images.

    Parameters
    ----------
    objects
        (q,) from `studies.sample_objects`.
    encoding
        The one of the index's regions.
    words
        Columns that describe an object.
    templates
        Wordings around the words.
    seed, noise
        Of the boxes.
    """
    from regionlab.studies import (
        sampling as studies,  # late: it needs torch, which the rest does not
    )

    asked = objects["image_id"].tolist()
    found = studies.segment_objects(
        collection, objects, "box", segmenter, encoder, seed=seed, noise=noise
    )
    regions = studies.query_regions(
        collection, asked, [[region] for region in found], encoder, encoding=encoding
    )
    said = [studies.describe_object(row, words) for _, row in objects.iterrows()]
    texts = encoder.encode_texts(said, templates=templates)
    own = index.rows_of(asked)
    whole = [Query([Part(vector)]) for vector in index.vectors[own]]
    worded = [Query([Part(v, label=s)]) for v, s in zip(texts, said, strict=True)]
    images = {"target": "images"}
    return {
        "region": Questions(regions, {"target": "regions"}, own),
        "whole image": Questions(whole, images, own),
        "words": Questions(worded, images, np.full(len(own), -1)),
    }


def play_rounds(
    session: FeedbackSession, relevant: np.ndarray, *, rounds: int = 5, page: int = 10
) -> tuple[FeedbackSession, dict[str, np.ndarray]]:
    """Let a simulated user judge page after page.

    Parameters
    ----------
    session
        With the query; without judgements.
    relevant
        (n,) bool, which images of the index the user is after.
    rounds
        How many pages are judged.
    page
        Images a page.

    Returns
    -------
    FeedbackSession
        As it is after the last round.
    dict
        Names in `MEASURES` to (rounds + 1,) average precision, before the first round and after
        each: "feedback" and "none" on the residual collection, "frozen" on all images.
    """
    ids, first = session.index.images["image_id"].to_numpy(), session.before.rows[0]
    shown, found = np.empty(0, np.int64), []
    for number in range(rounds + 1):
        order = session.rank(len(ids), new_only=True).rows[0]
        orders = order, first[~np.isin(first, shown)], np.append(shown, order)
        found.append([_find_precision(relevant, one) for one in orders])
        if number < rounds:
            seen = order[:page]
            said = zip(ids[seen], relevant[seen].tolist(), strict=True)
            session = replace(session, history=(*session.history, *said))
            shown = np.append(shown, seen)
    return session, dict(zip(MEASURES, np.transpose(found), strict=True))


def _find_precision(relevant: np.ndarray, order: np.ndarray) -> float:
    """Return the average precision of rows that are all there are; NaN if none is relevant."""
    hits = relevant[order][None]
    if not hits.any():
        return np.nan
    return float(average_precision(judge_hits(hits, hits.sum(axis=1)), divisor="relevant")[0])


def measure_feedback(
    index: Index,
    queries: Sequence[Query],
    relevance: np.ndarray,
    *,
    exclude: Sequence[int] | None = None,
    rounds: int = 5,
    page: int = 10,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Measure what feedback does for each of many queries.

    Parameters
    ----------
    index, queries
        Where to look, and for what.
    relevance
        (q, n) bool.
    exclude
        (q,) rows left out, such as the queries' own images; -1 for none.
    rounds, page
        As for `play_rounds`.
    options
        For `FeedbackSession`: `search`, `method`, `settings`, `negatives`, `seed`.

    Returns
    -------
    dict
        Names in `MEASURES` to (q, rounds + 1).

    Raises
    ------
    ValueError
        If there are not as many rows of relevance or exclusions as queries.
    """
    relevance = np.asarray(relevance) > 0
    exclude = [-1] * len(queries) if exclude is None else exclude
    if relevance.shape != (len(queries), len(index)) or len(exclude) != len(queries):
        raise ValueError(
            f"{len(queries)} queries in {len(index)} images need as much relevance and as many "
            f"exclusions, got {relevance.shape} and {len(exclude)}"
        )
    found = []
    asked = zip(queries, relevance, exclude, strict=True)
    desc = f"feedback by {options.get('method', 'rocchio')}"
    for query, relevant, own in progress(asked, desc=desc, total=len(queries)):
        session = FeedbackSession(index, query, exclude=int(own), **options)
        found.append(play_rounds(session, relevant, rounds=rounds, page=page)[1])
    return {name: np.stack([one[name] for one in found]) for name in MEASURES}


def choose_settings(
    index: Index,
    queries: Sequence[Query],
    relevance: np.ndarray,
    candidates: Sequence[tuple[str, Mapping[str, float]]],
    *,
    rounds: int = 3,
    **options: Any,
) -> pd.DataFrame:
    """Try settings on a validation split, by mAP after some rounds, frozen.

    On residual collections a good setting would be punished: it leaves the hard images.

    Parameters
    ----------
    candidates
        Pairs of a method and its settings.
    rounds
        After how many rounds they are compared.
    options
        As for `measure_feedback`.

    Returns
    -------
    pd.DataFrame
        A row a candidate: `method`, `settings`, `mAP`, and `best`, which is True for the best
        of each method (the first of equals).
    """
    values = [
        measure_feedback(
            index, queries, relevance, method=method, settings=settings, rounds=rounds, **options
        )["frozen"][:, -1]
        for method, settings in candidates
    ]
    methods, settings = zip(*candidates, strict=True)
    table = pd.DataFrame({"method": methods, "settings": settings})
    table["mAP"] = [float(np.nanmean(one)) for one in values]
    table["best"] = table.index.isin(table.groupby("method")["mAP"].idxmax())
    return table


def summarise_rounds(
    measured: Mapping[str, np.ndarray], *, seed: int, resamples: int = 2000
) -> list[dict[str, dict]]:
    """Average over queries, with 95 % intervals, before the first round and after each.

    Parameters
    ----------
    measured
        From `measure_feedback`.
    seed, resamples
        Of the bootstrap over queries.

    Returns
    -------
    list of dict
        For each round `MEASURES` and "gain", the paired difference of "feedback" and "none",
        each `{"value", "ci95", "n"}`; of the gain also the p-value. A measure of which fewer
        than two queries have a value is left out.
    """
    found: list[dict[str, dict]] = []
    draws = {"seed": seed, "n_resamples": resamples}
    for columns in zip(*(np.transpose(measured[name]) for name in MEASURES), strict=True):
        values = dict(zip(MEASURES, columns, strict=True))
        enough = {name: v for name, v in values.items() if np.count_nonzero(~np.isnan(v)) > 1}
        after = {name: mean_with_ci(v, **draws) for name, v in enough.items()}
        if "feedback" in enough:
            after["gain"] = compare_paired(values["feedback"], values["none"], **draws)
        found.append(after)
    return found
