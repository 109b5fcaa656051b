"""Stage 2 of S4: train the Combiner on features computed once, CLIP frozen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regionlab.combiner import Combiner, CombinerSize
from regionlab.composed_files import write_combiner
from regionlab.composed_training import (
    Lessons,
    check_recipe,
    contrastive_loss,
    draw_batches,
    run_epochs,
)
from regionlab.embedding import Encoder
from regionlab.progress import progress

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class CombinerRecipe:
    """How a Combiner is trained; the defaults are those of S4's authors.

    Attributes
    ----------
    projection, hidden
        Sizes of its layers, as multiples of the width of the features.
    patience
        Epochs without a better score after which training stops.
    dtype
        Of the file: "fp16" or "int8".
    """

    seed: int = 0
    epochs: int = 300
    batch: int = 4096
    learning_rate: float = 2e-5
    projection: int = 4
    hidden: int = 8
    dropout: float = 0.5
    validate_every: int = 3
    patience: int = 30
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        check_recipe(self)


@dataclass(frozen=True)
class CombinerLessons:
    """Training triplets as tensors: (m, d) references and targets, (m, v, d) texts."""

    references: torch.Tensor
    targets: torch.Tensor
    texts: torch.Tensor

    def __len__(self) -> int:
        return len(self.references)


def encode_lessons(lessons: Lessons, encode_texts: Encode, device) -> CombinerLessons:
    """Encode every wording of every triplet once."""
    forms = zip(*lessons.wordings, strict=True)
    total = len(lessons.wordings[0])
    texts = [encode_texts(list(form)) for form in progress(forms, "encode wordings", total)]
    arrays = (lessons.references, lessons.targets, np.stack(texts, axis=1))
    return CombinerLessons(*(torch.from_numpy(array).float().to(device) for array in arrays))


def train_combiner(
    encoder: Encoder,
    encode_texts: Encode,
    lessons: Lessons,
    recipe: CombinerRecipe,
    *,
    folder: Path,
    weights: Path,
    measure: Callable[[Combiner], dict[str, float]],
    texts: str = "",
) -> dict[str, Any]:
    """Train a Combiner, or go on where an earlier run was cut off, and write its weights.

    Parameters
    ----------
    encode_texts
        The text encoder, frozen or tuned, to features as long as it makes them.
    lessons
        The training triplets.
    folder
        For the checkpoint and the curve.
    weights
        Gets the weights, safetensors.
    measure
        Given the Combiner, returns metrics, of them "score" to choose by.
    texts
        SHA-256 of the tuned text file, if it is the text encoder.

    Returns
    -------
    dict
        As `composed_training.run_epochs`.
    """
    inputs = encode_lessons(lessons, encode_texts, encoder.device)
    combiner = create_combiner(encoder.dim, recipe).to(encoder.device)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=recipe.learning_rate)
    found = run_epochs(
        combiner, optimizer, recipe, name=weights.stem, folder=folder,
        lessons=lessons.digest(encoder.space, texts),
        take_epoch=lambda rng: take_epoch(combiner, optimizer, inputs, recipe.batch, rng),
        validate=lambda: measure(combiner),
    )  # fmt: skip
    write_combiner(
        weights, combiner, encoder,
        image_length=lessons.image_length, texts=texts, dtype=recipe.dtype,
    )  # fmt: skip
    return found


def create_combiner(width: int, recipe: CombinerRecipe) -> Combiner:
    """Return a Combiner with random weights, the same for the same seed."""
    size = CombinerSize(width, recipe.projection, recipe.hidden)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return Combiner(size, dropout=recipe.dropout)


def take_epoch(
    combiner: Combiner,
    optimizer: torch.optim.Optimizer,
    lessons: CombinerLessons,
    batch: int,
    rng: np.random.Generator,
) -> float:
    """Train for one epoch, each triplet in one of its wordings; return the mean loss."""
    combiner.train()
    losses = []
    for rows in draw_batches(len(lessons), batch, rng):
        forms = torch.from_numpy(rng.integers(lessons.texts.shape[1], size=len(rows)))
        rows = torch.from_numpy(rows)
        predicted = combiner(lessons.references[rows], lessons.texts[rows, forms])
        loss = contrastive_loss(predicted, lessons.targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))
