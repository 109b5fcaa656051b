"""Train, evaluate and submit composed retrieval on a data set: what `regionlab compose` does."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regionlab.compose import training
from regionlab.compose.benchmark import Benchmark, fit_weight, load_benchmark, study_ladder
from regionlab.compose.combiner import Combiner
from regionlab.compose.composers import COMPOSERS, add, create_composer, to_unit
from regionlab.compose.files import COMBINERS, TEXT, TrainedParts
from regionlab.compose.protocols import write_cirr_submission
from regionlab.models.clip import TextFeatures
from regionlab.models.registry import load_encoder
from regionlab.util.errors import InputError, check_choice
from regionlab.util.files import hash_file
from regionlab.util.paths import DATA, expand

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("text", *COMBINERS)  # in this order
KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Setup:
    """An encoder, a data set, and the folder of the parts that are trained on them.

    Parameters
    ----------
    encoder_name, padding
        As for `load_encoder`.
    data, root
        As for `load_benchmark`.
    folder
        Gets the trained parts; features, checkpoints and curves go to folders of their own in
        it, or in `cache`. By default a folder in data/composed named after data and encoder.
    split
        That epochs and weights are chosen on, by the metric of the data set's own protocol.
    layout, options
        Of Toybox: "cirr" or "fashioniq", whose protocol that is; and `groups` and `seed` of the
        training triplets, which have two captions each, as FashionIQ's.
    """

    def __init__(
        self,
        encoder_name: str,
        data: str,
        root: Path | str | None = None,
        *,
        folder: Path | str | None = None,
        cache: Path | None = None,
        padding: str = "target",
        split: str = "val",
        layout: str | None = None,
        **options: Any,
    ):
        self.encoder_name, self.padding = encoder_name, padding
        self.data, self.split, self.layout = data, split, layout
        self.root = None if root is None else expand(root)
        name = encoder_name.replace("/", "-").strip("-")
        self.folder = expand(folder or DATA / "composed" / f"{data}-{name}")
        self.cache, self.options = expand(cache or self.folder), options

    def train(
        self, stage: str, recipe: training.TextRecipe | training.CombinerRecipe
    ) -> dict[str, Any]:
        """Train "text", "combiner" or "fine_tuned_combiner", or go on; returns as `run_training`.

        Raises WeightsError if "fine_tuned_combiner" finds no tuned text encoder.
        """
        check_choice("stage", stage, STAGES)
        if stage == "text":
            return self._tune_text(recipe)
        tuned = stage == "fine_tuned_combiner"
        parts = TrainedParts(self.encoder, self.folder)
        encode = (parts.load_text() if tuned else TextFeatures(self.encoder)).encode_texts
        return training.train_combiner(
            self.encoder, encode, self.training_set, recipe,
            folder=self.cache / "checkpoints", weights=parts.path(stage),
            measure=self._make_measure(encode),
            texts=hash_file(parts.path(TEXT)) if tuned else "",
        )  # fmt: skip

    @cached_property
    def encoder(self):
        """The encoder of the features, in the precision of the machine."""
        return load_encoder(self.encoder_name, padding=self.padding)

    @cached_property
    def training_set(self) -> training.TrainingSet:
        """The training triplets."""
        layout = "fashioniq" if self.data == "toybox" else None
        return training.make_training_set(
            list(self.load("train", layout, **self.options).sets.values())
        )

    @cached_property
    def validation_set(self) -> Benchmark:
        """The split that epochs are chosen on."""
        return self.load(self.split, self.layout)

    def load(self, split: str, layout: str | None = None, **options) -> Benchmark:
        """Load a split, its features kept in `cache`."""
        return load_benchmark(
            self.encoder, self.data, self.root, layout=layout, split=split,
            folder=self.cache / "features", **options,
        )  # fmt: skip

    def load_and_tell(self, split: str, **options) -> Benchmark:
        """Load a split, and tell which images are left out."""
        benchmark = self.load(split, **options)
        for name, reason in benchmark.failures[:20]:
            print(f"left out {name}: {reason}", file=sys.stderr)
        if benchmark.failures:
            print(f"{len(benchmark.failures)} images of {split} left out", file=sys.stderr)
        return benchmark

    def _tune_text(self, recipe: training.TextRecipe) -> dict[str, Any]:
        known = self.validation_set  # what is wrong with it shows before an epoch has passed
        learner = load_encoder(self.encoder_name, padding=self.padding, precision="fp32")

        def measure(encode: training.EncodeTexts) -> dict[str, float]:
            return _average(known, known.compose(lambda i, t: to_unit(add(i, encode(t)))))

        return training.tune_text(
            learner, self.training_set, recipe, folder=self.cache / "checkpoints",
            weights=TrainedParts(learner, self.folder).path(TEXT), measure=measure,
        )  # fmt: skip

    def _make_measure(self, encode: training.EncodeTexts) -> Callable[[Combiner], dict[str, float]]:
        sets = self.validation_set.sets
        texts = {category: encode(part.triplets.texts()) for category, part in sets.items()}

        def measure(combiner: Combiner) -> dict[str, float]:
            composed = {c: combiner.compose(p.references, texts[c]) for c, p in sets.items()}
            return _average(self.validation_set, composed)

        return measure


def _average(benchmark: Benchmark, composed: dict[str, np.ndarray]) -> dict[str, float]:
    """Return each metric's mean over categories, and the score."""
    measured = benchmark.measure(composed)
    metrics = next(iter(measured.values()))
    means = {m: float(np.mean([of[m].mean() for of in measured.values()])) for m in metrics}
    return means | {"score": benchmark.score(measured)}


# Commands


def train_stages(
    setup: Setup,
    stages: Sequence[str] = STAGES,
    *,
    text: Mapping[str, Any] | None = None,
    combiner: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train stages one after the other, or go on with them; print and return what came out.

    `text` and `combiner` are changes to `TextRecipe` and `CombinerRecipe`, see `make_recipe`.
    """
    recipes = {"text": make_recipe(training.TextRecipe(), text or {})}
    recipes |= dict.fromkeys(COMBINERS, make_recipe(training.CombinerRecipe(), combiner or {}))
    results = {}
    for stage in stages:
        check_choice("stage", stage, STAGES)
        found = results[stage] = setup.train(stage, recipes[stage])
        print(f"{stage}: best of {found['epoch']} epochs is {found['best_epoch']}, "
              f"score {found['best_score']:.4f}")  # fmt: skip
    return results


def evaluate_composers(
    setup: Setup,
    composers: Sequence[str] = tuple(COMPOSERS),
    *,
    split: str = "val",
    gallery: str = "split",
    weight: float | None = None,
) -> "pd.DataFrame":
    """Measure composers on a split; print and return a row each, "value [low, high]" a metric.

    `gallery` is what FashionIQ's queries search: all images of the "split", or the "union" that
    queries name. `weight` is that of the text, for "weighted" and "slerp"; by default chosen on
    the setup's own split.
    """
    import pandas as pd

    for name in composers:
        check_choice("composer", name, tuple(COMPOSERS))
    benchmark = setup.load_and_tell(split, gallery=gallery)
    weights = {name: weight for name in composers if COMPOSERS[name].weighted}
    if weights and weight is None:
        known = setup.load_and_tell(setup.split, gallery=gallery)
        weights = {name: fit_weight(name, setup.encoder, known)[0] for name in weights}
    study = study_ladder(
        setup.encoder, benchmark, weights=weights, folder=setup.folder, names=composers
    )
    table = pd.DataFrame(
        {name: {metric: f"{m['value']:.4f} [{m['ci95'][0]:.4f}, {m['ci95'][1]:.4f}]"
                for metric, m in found.items()}
         for name, found in study.summarise(seed=0).items()}
    ).T  # fmt: skip
    print(f"{benchmark}, weights of the words {weights}")
    print(table.to_string())
    return table


def write_submission(
    setup: Setup,
    out: Path | str = "submission",
    *,
    composer: str = "fine_tuned_combiner",
    split: str = "test1",
    weight: float | None = None,
) -> list[Path]:
    """Write the files for CIRR's test server to the folder `out`; print and return their paths.

    `weight` is that of the text, for "weighted" and "slerp".
    """
    if setup.data == "fashioniq":
        raise InputError("there is a test server, and files for it, of CIRR only, not of fashioniq")
    benchmark = setup.load_and_tell(split)
    if benchmark.failures:
        raise InputError("the server wants an answer to each pair: every image must be there")
    chosen = create_composer(
        composer, setup.encoder, weight=weight, folder=setup.folder,
        image_length=benchmark.image_length,
    )  # fmt: skip
    part = benchmark.sets[""]
    composed = chosen.compose(part.references, part.triplets.texts())
    files = write_cirr_submission(out, composed, part.gallery, part.triplets)
    print(*files, sep="\n")
    return files


def make_recipe(recipe: Any, changes: Mapping[str, Any]) -> Any:
    """Return a recipe with some values replaced; text, as from a command line, is converted.

    Raises InputError, which names what is known, for an unknown setting or a wrong value.
    """
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    for key in changes:
        if key not in kinds:
            raise InputError(f"unknown setting {key!r}; known: {', '.join(kinds)}")
    return replace(recipe, **{key: _convert(key, v, kinds[key]) for key, v in changes.items()})


def _convert(key: str, value: Any, kind: type) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return BOOLS[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError) as e:
        raise InputError(f"{key} must be {KINDS[kind]}, got {value!r}") from e
