"""The stages of S4 on a data set: what each learns from, is chosen by, and leaves behind."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.compose.benchmark import Benchmark, load_benchmark
from regionlab.compose.combiner import Combiner
from regionlab.compose.composers import add, to_unit
from regionlab.compose.features import make_lessons
from regionlab.compose.files import COMBINERS, TEXT, TrainedParts
from regionlab.compose.training import Lessons
from regionlab.compose.tuning import CombinerRecipe, TextRecipe, train_combiner, tune_text
from regionlab.models.registry import load_encoder
from regionlab.models.text_tower import TextFeatures
from regionlab.util.checks import check_choice
from regionlab.util.files import hash_file
from regionlab.util.paths import expand

Encode = Callable[[list[str]], np.ndarray]


class Stages:
    """The training of composed retrieval on one data set with one encoder.

    Parameters
    ----------
    encoder_name, padding
        As for `load_encoder`.
    data, root
        As for `load_benchmark`.
    folder
        Gets the trained parts; features, checkpoints and curves go to folders of their own in
        it, or in `cache`.
    split
        That epochs are chosen on, by the metric of the data set's own protocol.
    layout
        Of Toybox, "cirr" or "fashioniq": the one chosen by. It learns from two captions a
        triplet, as FashionIQ has them.
    options
        Of Toybox's training triplets: `groups`, `seed`.
    """

    def __init__(
        self,
        encoder_name: str,
        data: str,
        root: Path | str | None = None,
        *,
        folder: Path,
        cache: Path | None = None,
        padding: str = "target",
        split: str = "val",
        layout: str | None = None,
        **options: Any,
    ):
        self.encoder_name, self.padding = encoder_name, padding
        self.data, self.root, self.split, self.layout = data, root, split, layout
        self.folder, self.options = expand(folder), options
        self.cache = expand(cache or folder)

    def train(self, stage: str, recipe: TextRecipe | CombinerRecipe) -> dict[str, Any]:
        """Train "text", "combiner" or "fine_tuned_combiner", or go on with it.

        Returns
        -------
        dict
            As `composed_training.run_epochs`.

        Raises
        ------
        ValueError
            If the stage is unknown.
        WeightsError
            If "fine_tuned_combiner" finds no tuned text encoder.
        """
        check_choice("stage", stage, ("text", *COMBINERS))
        if stage == "text":
            return self._tune_text(recipe)
        tuned = stage == "fine_tuned_combiner"
        parts = TrainedParts(self.encoder, self.folder)
        encode = (parts.load_text() if tuned else TextFeatures(self.encoder)).encode_texts
        return train_combiner(
            self.encoder, encode, self.training_set, recipe,
            folder=self.cache / "checkpoints", weights=parts.path(stage),
            measure=self._examine_combiner(encode),
            texts=hash_file(parts.path(TEXT)) if tuned else "",
        )  # fmt: skip

    @cached_property
    def encoder(self):
        """The encoder of the features, in the precision of the machine."""
        return load_encoder(self.encoder_name, padding=self.padding)

    @cached_property
    def training_set(self) -> Lessons:
        """The training triplets."""
        layout = "fashioniq" if self.data == "toybox" else None
        known = self._load("train", layout, **self.options)
        return make_lessons(list(known.sets.values()))

    @cached_property
    def validation_set(self) -> Benchmark:
        """The split that epochs are chosen on."""
        return self._load(self.split, self.layout)

    def _load(self, split: str, layout: str | None, **options) -> Benchmark:
        return load_benchmark(
            self.encoder, self.data, self.root, layout=layout, split=split,
            folder=self.cache / "features", **options,
        )  # fmt: skip

    def _tune_text(self, recipe: TextRecipe) -> dict[str, Any]:
        _ = self.validation_set  # what is wrong with it shows before an epoch has passed
        learner = load_encoder(self.encoder_name, padding=self.padding, precision="fp32")

        def examine(encode: Encode) -> dict[str, float]:
            return self._examine(lambda images, texts: to_unit(add(images, encode(texts))))

        return tune_text(
            learner, self.training_set, recipe, folder=self.cache / "checkpoints",
            weights=TrainedParts(learner, self.folder).path(TEXT), measure=examine,
        )  # fmt: skip

    def _examine_combiner(self, encode: Encode) -> Callable[[Combiner], dict[str, float]]:
        texts = {c: encode(part.triplets.texts()) for c, part in self.validation_set.sets.items()}

        def examine(combiner: Combiner) -> dict[str, float]:
            composed = {
                category: combiner.compose(part.references, texts[category])
                for category, part in self.validation_set.sets.items()
            }
            return _average(self.validation_set, composed)

        return examine

    def _examine(self, compose) -> dict[str, float]:
        return _average(self.validation_set, self.validation_set.compose(compose))


def _average(validation_set: Benchmark, composed: dict[str, np.ndarray]) -> dict[str, float]:
    """Return each metric's mean over categories, and the score."""
    measured = validation_set.measure(composed)
    first = next(iter(measured.values()))
    means = {
        metric: float(np.mean([found[metric].mean() for found in measured.values()]))
        for metric in first
    }
    return means | {"score": validation_set.score(measured)}
