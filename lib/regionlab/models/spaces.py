"""Vectors that say of which embedding space and region encoding they are."""

from collections.abc import Iterable

import numpy as np


class Vectors(np.ndarray):
    """An array of vectors with their space; else an array like any other.

    Slices, copies, sums, multiples and what is joined stay in the space. Whatever else is
    computed, such as cosines, and what mixes two spaces, is of none.

    Attributes
    ----------
    space : `Encoder.space` of the model; None if it is not known.
    encoding : How regions became vectors, a name in `regions.REGION_ENCODINGS`; None for whole
        images and words.
    """

    space: str | None = None
    encoding: str | None = None

    def __array_finalize__(self, source: object) -> None:
        super().__array_finalize__(source)
        self.space, self.encoding = get_space(source), get_encoding(source)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        if return_scalar:
            return array[()]
        function, sources = (None, (self,)) if context is None else context[:2]
        if function is not None and function not in LINEAR:
            return np.asarray(array)
        return _with_common_space(array, sources)

    def __array_function__(self, function, types, arguments, options):
        result = super().__array_function__(function, types, arguments, options)
        if function is np.concatenate:  # stack and vstack call it too
            return _with_common_space(result, arguments[0])
        return result

    def __reduce__(self) -> tuple:
        return with_space, (np.asarray(self), self.space, self.encoding)


class MappedVectors(Vectors, np.memmap):
    """Vectors in a file."""


LINEAR = (np.add, np.subtract, np.multiply, np.divide, np.negative, np.positive)


def with_space(vectors: np.ndarray, space: str | None, encoding: str | None = None) -> Vectors:
    """Return the same vectors, memory-mapped ones too, with the space that they are of."""
    mapped = isinstance(vectors, np.memmap)
    known = np.asanyarray(vectors).view(MappedVectors if mapped else Vectors)
    known.space, known.encoding = space, encoding
    return known


def _with_common_space(array: np.ndarray, sources: Iterable[object]) -> np.ndarray:
    """Return what was made of some arrays with the space of those that say one, if it is one."""
    array = np.asarray(array)
    known = [source for source in sources if get_space(source) is not None]
    spaces = {get_space(source) for source in known}
    encodings = {get_encoding(source) for source in known} - {None}
    if array.dtype.kind != "f" or len(spaces) != 1 or len(encodings) > 1:
        return array
    return with_space(array, *spaces, *encodings)


def to_unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors, (..., d) float, at length 1; NaN where one is zero or not finite."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    good = np.isfinite(lengths) & (lengths > 0)
    with np.errstate(invalid="ignore"):  # what is not finite is NaN in the end
        return vectors / np.where(good, lengths, np.nan)


def get_space(vectors: object) -> str | None:
    """Return the embedding space that vectors are said to be of; None if nothing says so."""
    return getattr(vectors, "space", None)


def get_encoding(vectors: object) -> str | None:
    """Return the region encoding that vectors are of; None for whole images and words."""
    return getattr(vectors, "encoding", None)


def find_difference(one: object, other: object) -> str:
    """Return in words why two sets of vectors cannot be compared; "" if nothing is known to.

    What does not say its space fits everywhere, and so do whole images and words among regions.
    """
    pairs = {
        "space": (get_space(one), get_space(other)),
        "region encoding": (get_encoding(one), get_encoding(other)),
    }
    for what, (has, wanted) in pairs.items():
        if None not in (has, wanted) and has != wanted:
            return f"{what} {has} against {what} {wanted}"
    return ""
