"""From liked and disliked vectors to a better query vector: Rocchio's, and a logistic head's."""

import numpy as np

from regionlab.spaces import Vectors, find_difference, get_encoding, get_space, with_space


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

    Raises
    ------
    ValueError
        If a weight is negative or not finite.
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
    like any other. Without anything disliked or unjudged the query stays.

    Parameters
    ----------
    C
        Of `sklearn.linear_model.LogisticRegression`: the larger, the less is w held small.

    Raises
    ------
    ValueError
        If `C` is not positive.
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

    Raises
    ------
    ValueError
        If the method or a setting is unknown or out of range, or shapes, or the spaces that
        vectors say they are of, do not agree.
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
