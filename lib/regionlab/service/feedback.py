"""Liked and disliked results move the parts of a query."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regionlab.query import Part
from regionlab.service.gallery import Gallery

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.25  # of the query, the liked and the disliked


def refine_parts(
    gallery: Gallery,
    parts: Sequence[Part],
    liked: Sequence[str],
    disliked: Sequence[str],
    *,
    by_regions: bool,
) -> list[Part]:
    """Return the parts with each wanted one moved towards the liked and away from the others.

    A judged image speaks to each wanted part by the region that is most like it; a judged
    region only to the part that it is most like.

    Raises
    ------
    HTTPException
        404 if an id is not known.
    """
    if not liked and not disliked:
        return list(parts)
    wanted = [i for i, part in enumerate(parts) if part.weight > 0]
    vectors = [parts[i].vector for i in wanted]
    judged = [
        _gather(gallery, vectors, names, by_regions=by_regions) for names in (liked, disliked)
    ]
    refined = list(parts)
    for i, vector, good, bad in zip(wanted, vectors, *judged, strict=True):
        refined[i] = replace(parts[i], vector=rocchio(vector, good, bad))
    return refined


def _gather(
    gallery: Gallery, vectors: list[np.ndarray], names: Sequence[str], *, by_regions: bool
) -> list[list[np.ndarray]]:
    """Return for each vector of the query those of the judged that speak to it."""
    gathered: list[list[np.ndarray]] = [[] for _ in vectors]
    for name in names:
        found = [gallery.find_evidence(v, name, by_regions=by_regions) for v in vectors]
        if name in gallery.region_rows and found:
            nearest = int(np.argmax([v @ e for v, e in zip(vectors, found, strict=True)]))
            gathered[nearest].append(found[nearest])
            continue
        for one, evidence in zip(gathered, found, strict=True):
            one.append(evidence)
    return gathered


def rocchio(
    vector: np.ndarray, liked: Sequence[np.ndarray], disliked: Sequence[np.ndarray]
) -> np.ndarray:
    """Move a vector towards the mean of the liked and away from that of the disliked.

    alpha q + beta mean(liked) - gamma mean(disliked), of unit length again (Rocchio 1971);
    the vector itself if nothing of it is left.
    """
    moved = ALPHA * vector
    if len(liked):
        moved = moved + BETA * np.mean(liked, axis=0)
    if len(disliked):
        moved = moved - GAMMA * np.mean(disliked, axis=0)
    length = np.linalg.norm(moved)
    return vector if length < 1e-6 else (moved / length).astype(np.float32)
