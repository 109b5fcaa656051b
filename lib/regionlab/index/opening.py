"""Open an index, and build first what of it is not there yet."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from regionlab.index import index as reading
from regionlab.index.index import Index
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.data.collection import Collection
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter


def open_index(
    folder: Path | str,
    *,
    collection: "Collection | None" = None,
    encoder: "Encoder | None" = None,
    segmenter: "Segmenter | Callable[[], Segmenter] | None" = None,
    regions: str | None = None,
    everything: "MaskGeneratorConfig | None" = None,
) -> Index:
    """Open an index after checking that its tables and vectors agree.

    With a collection and an encoder what is absent, or no longer what the collection holds, is
    built first, as by `build_index` and `add_regions`.

    Parameters
    ----------
    folder
        Where the index lies, or goes.
    collection, encoder
        Which images and which vectors; both or neither.
    segmenter
        Finds the regions, for `regions`; or a function that loads one, called only with `regions`.
    regions
        A name in `REGION_ENCODINGS`: the index has regions encoded so. None asks for none.
    everything
        As for `add_regions`.

    Raises
    ------
    IndexFolderError
        If there is no index and nothing to build it from, or it is damaged.
    InputError
        If one of collection and encoder is given without the other, or `regions` without a
        segmenter.
    """
    if (collection is None) != (encoder is None):
        raise InputError("an index is built from a collection and an encoder: give both or none")
    if regions is not None and (collection is None or segmenter is None):
        raise InputError(f"regions={regions!r} needs a collection, an encoder and a segmenter")
    if collection is None:
        return reading.open_index(folder)
    from regionlab.index.build import build_index

    index = build_index(collection, encoder, folder)
    if regions is None:
        return index
    from regionlab.index.regions import add_regions

    made = segmenter() if callable(segmenter) else segmenter
    return add_regions(index, made, encoder, encoding=regions, everything=everything)
