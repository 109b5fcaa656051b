"""Relevance feedback: a few likes and dislikes make a better query.

A session is a query and the history of what was said about its results; nothing in it changes,
so undo is a step back and the same judgements always give the same ranking:

    session = FeedbackSession(index, query)
    session = session.judge(image_id, liked=True)
    ranking = session.rank(k=10)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from regionlab.index.index import Index
from regionlab.models.spaces import Vectors, find_difference, get_encoding, get_space, with_space
from regionlab.search.query import Query
from regionlab.search.regions import RegionRanking, search_regions
from regionlab.util.errors import check_count


def rocchio(
    vector: np.ndarray,
    liked: np.ndarray,
    disliked: np.ndarray,
    unjudged: np.ndarray,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> np.ndarray:
    """Move a query towards what was liked and away from what was not (Rocchio 1971).

        alpha * query + beta * mean(liked) - gamma * mean(disliked), of unit length again

    Where they cancel each other out, the query stays. `unjudged` has no say.
    """
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not np.isfinite(weight) or weight < 0:
            raise ValueError(f"{name} must be 0 or more, got {weight}")
    moved = alpha * vector.astype(np.float64)
    if len(liked):
        moved += beta * liked.mean(axis=0, dtype=np.float64)
    if len(disliked):
        moved -= gamma * disliked.mean(axis=0, dtype=np.float64)
    return _to_unit(moved, vector)


def logistic(
    vector: np.ndarray,
    liked: np.ndarray,
    disliked: np.ndarray,
    unjudged: np.ndarray,
    *,
    C: float = 10.0,  # noqa: N803, scikit-learn's name
) -> np.ndarray:
    """Fit a logistic head that tells liked from disliked, and search with its weights.

    The query itself is one more liked example, and `unjudged` ones count as disliked: most of a
    gallery is not what is looked for. The head ranks by w · x, so w of unit length is a query
    like any other. Without anything disliked or unjudged the query stays. `C` is that of
    `sklearn.linear_model.LogisticRegression`: the larger, the less is w held small.
    """
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(C) or C <= 0:
        raise ValueError(f"C must be above 0, got {C}")
    wanted, others = np.vstack([vector[None], liked]), np.vstack([disliked, unjudged])
    if not len(others):
        return vector
    labels = np.repeat([1, 0], [len(wanted), len(others)])
    head = LogisticRegression(C=C, max_iter=1000).fit(np.vstack([wanted, others]), labels)
    return _to_unit(head.coef_[0], vector)


METHODS = {"rocchio": rocchio, "logistic": logistic}


def refine(
    vector: np.ndarray,
    liked: np.ndarray,
    disliked: np.ndarray,
    *,
    method: str = "rocchio",
    unjudged: np.ndarray | None = None,
    **settings: float,
) -> Vectors:
    """Make a better query vector of what was liked and disliked.

    Parameters
    ----------
    vector
        (d,) float32, unit length: what was asked for.
    liked, disliked
        (l, d) and (m, d) float32, unit length; either may be empty. With neither the query
        stays as it is.
    method
        A name in `METHODS`.
    unjudged
        (u, d) float32, examples of the rest of the gallery, for "logistic".
    settings
        `alpha`, `beta`, `gamma` of "rocchio"; `C` of "logistic".

    Returns
    -------
    Vectors
        (d,) float32, unit length, to be searched with as before; of the space that `vector` says.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    known = set(METHODS[method].__kwdefaults__)
    if strange := set(settings) - known:
        raise ValueError(f"{method} has no setting {min(strange)!r}; it has {sorted(known)}")
    for name, vectors in {"liked": liked, "disliked": disliked, "unjudged": unjudged}.items():
        if difference := find_difference(vectors, vector):
            raise ValueError(f"{name} vectors cannot refine the query: {difference}")
    asked, vector = vector, np.asarray(vector, np.float32)
    none = np.empty((0, len(vector)), np.float32)
    examples = {
        "liked": np.asarray(liked, np.float32),
        "disliked": np.asarray(disliked, np.float32),
        "unjudged": none if unjudged is None else np.asarray(unjudged, np.float32),
    }
    for name, vectors in examples.items():
        if vectors.ndim != 2 or vectors.shape[1] != len(vector):
            raise ValueError(f"{name} must be (n, {len(vector)}) vectors, got {vectors.shape}")
    refined = METHODS[method](vector, **examples, **settings)  # which checks the settings too
    judged = len(examples["liked"]) + len(examples["disliked"])
    refined = refined.astype(np.float32) if judged else vector
    return with_space(refined, get_space(asked), get_encoding(asked))


def _to_unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-6 else otherwise


@dataclass(frozen=True, eq=False, repr=False)
class FeedbackSession:
    """A query, and the judgements of its results in their order; it never changes.

    Each wanted part of the query is refined by itself. A judged image has its say through what
    the query, as first asked, found in it: the region that matched the part or, in a search
    of whole images, the whole image. Unwanted parts stay as they are.

    Parameters
    ----------
    index, query
        Where to look, and what was asked for first.
    search
        Options of `search_regions`: `target`, `aggregation`, `image_weight`, `rol`.
    exclude
        Row of an image that is left out, such as the query's own; -1 for none.
    method, settings
        "rocchio" or "logistic", and what `refine` may be told of it.
    negatives
        How many unjudged images, drawn by `seed`, the logistic head is shown.
    history
        Pairs of an image id and whether it was liked (None: a judgement taken back). The last
        word about an image counts. A history from elsewhere, such as a web page, may be given;
        KeyError if an image is not in the index.
    before
        The ranking of all images for the query as first asked; found if not given.
    """

    index: Index
    query: Query
    search: Mapping[str, Any] = field(default_factory=dict)
    exclude: int = -1
    method: str = "rocchio"
    settings: Mapping[str, float] = field(default_factory=dict)
    negatives: int = 20
    seed: int = 0
    history: tuple[tuple[str, bool | None], ...] = ()
    before: RegionRanking | None = None
    _rows: np.ndarray = field(init=False)  # of the images judged now, as in `judgements`

    def __post_init__(self) -> None:
        history = tuple((image_id, liked) for image_id, liked in self.history)
        for image_id, liked in history:
            if liked is not None and not isinstance(liked, bool):
                raise ValueError(f"{image_id} must be liked True, False or None, not {liked!r}")
        object.__setattr__(self, "history", history)
        object.__setattr__(self, "_rows", self.index.rows_of(self.judgements))
        if self.before is None:
            # Settings are checked here, not at the first judgement.
            nothing = np.empty((0, self.query.dim))
            refine(self.query.vectors[0], nothing, nothing, method=self.method, **self.settings)
            object.__setattr__(self, "before", self._search(self.query, len(self.index)))

    def __repr__(self) -> str:
        liked = sum(self.judgements.values())
        said = f"{liked} liked, {len(self.judgements) - liked} disliked"
        return f"<FeedbackSession: {self.query.label or 'a query'}, {said}, {self.method}>"

    @property
    def judgements(self) -> dict[str, bool]:
        """Image id to whether it is liked, for all that is judged now."""
        last = dict(self.history)
        return {image_id: liked for image_id, liked in last.items() if liked is not None}

    def judge(self, image_id: str, liked: bool | None) -> "FeedbackSession":
        """Return the session with one more judgement; None takes back an image's last one."""
        return replace(self, history=(*self.history, (image_id, liked)))

    def undo(self) -> "FeedbackSession":
        """Return the session without the last judgement; ValueError if there is none."""
        if not self.history:
            raise ValueError("there is no judgement to undo")
        return replace(self, history=self.history[:-1])

    def refine_query(self) -> Query:
        """Return the query as the judgements have made it."""
        if not self.judgements:
            return self.query
        liked = np.array(list(self.judgements.values()))
        judged = {"liked": self._rows[liked], "disliked": self._rows[~liked]}
        examples = judged | {"unjudged": self._draw_unjudged()}
        parts = [
            replace(part, vector=self._refine_part(number, examples)) if part.weight > 0 else part
            for number, part in enumerate(self.query.parts)
        ]
        return Query(tuple(parts), self.query.label)

    def rank(self, k: int = 10, *, new_only: bool = False) -> RegionRanking:
        """Return the ranking for the refined query; with `new_only`, of images not judged yet."""
        check_count("k", k)
        if not self.judgements:
            return _take(self.before, slice(k))
        if not new_only:
            return self._search(self.refine_query(), k)
        ranking = self._search(self.refine_query(), k + len(self._rows))
        new = ~np.isin(ranking.rows[0], self._rows)
        return _take(ranking, np.flatnonzero(new)[:k])

    def compare_orders(self, k: int = 10) -> pd.DataFrame:
        """Return the first k images with their rank now and before any feedback, from 1.

        Columns: those of `RegionRanking.table`, `before` and `liked` (None: not judged).
        """
        table = self.rank(k).table()
        order = pd.Index(self.index.images["image_id"].iloc[self.before.rows[0]])
        table["before"] = order.get_indexer(table["image_id"]) + 1
        table["liked"] = [self.judgements.get(image_id) for image_id in table["image_id"]]
        return table

    def _search(self, query: Query, k: int) -> RegionRanking:
        found = search_regions(self.index, query, k=k, exclude=[self.exclude], **self.search)
        last = np.count_nonzero(found.rows[0] >= 0)
        return _take(found, slice(last))

    def _refine_part(self, number: int, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        vector = self.query.parts[number].vector
        examples = {name: self._vectors_of(some, number) for name, some in rows.items()}
        return refine(vector, **examples, method=self.method, **self.settings)

    def _draw_unjudged(self) -> np.ndarray:
        """Return rows of images not judged, the same ones for a seed as long as they are not."""
        shuffled = np.random.default_rng(self.seed).permutation(len(self.index))
        known = np.append(self._rows, self.exclude)
        return shuffled[~np.isin(shuffled, known)][: self.negatives]

    def _vectors_of(self, rows: np.ndarray, part: int) -> np.ndarray:
        """Return what the first search compared a part with in these images, (n, d) or fewer."""
        if self.search.get("target") == "images":
            return self.index.vectors[rows]
        place = np.full(len(self.index), -1)
        place[self.before.rows[0]] = np.arange(len(self.before.rows[0]))
        ranked = place[rows][place[rows] >= 0]  # all but the image left out
        regions = self.before.regions[0, ranked, part]
        return self.index.region_vectors[regions[regions >= 0]]


def _take(ranking: RegionRanking, columns: slice | np.ndarray) -> RegionRanking:
    """Return a ranking with only these of its places."""
    arrays = ("rows", "scores", "regions")
    taken = {name: getattr(ranking, name)[:, columns] for name in arrays}
    terms = {name: values[:, columns] for name, values in ranking.terms.items()}
    return replace(ranking, **taken, terms=terms)
