"""Stage 2 of S4: train the Combiner on features computed once, CLIP frozen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regionlab.compose.combiner import Combiner, CombinerSize
from regionlab.compose.files import write_combiner, write_text
from regionlab.compose.training import (
    Lessons,
    check_recipe,
    contrastive_loss,
    run_epochs,
    sample_batches,
    trained_state,
)
from regionlab.models.encoder import Encoder
from regionlab.models.text_tower import (
    TextFeatures,
    TextTower,
    encode_by_length,
    fast_attention,
    text_parameters,
)
from regionlab.util.progress import progress

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class TextRecipe:
    """How the text encoder is tuned; the defaults are those of S4's authors.

    Attributes
    ----------
    freeze
        Parts of names, separated by commas, of parameters that are not tuned, such as
        "token_embedding".
    amp
        Mixed precision: "none", "bf16" or "fp16" (with a scaled loss).
    checkpointing
        Compute the tower's activations twice instead of keeping them: less memory, more time.
    patience
        Epochs without a better score after which training stops.
    dtype
        Of the file: "fp16" or "int8".
    """

    seed: int = 0
    epochs: int = 100
    batch: int = 512
    learning_rate: float = 2e-6
    weight_decay: float = 0.01
    freeze: str = ""
    amp: str = "none"
    checkpointing: bool = False
    validate_every: int = 1
    patience: int = 10
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        check_recipe(self)
        if self.amp not in AMP:
            raise ValueError(f"unknown amp {self.amp!r}; known: {', '.join(AMP)}")


def tune_text(
    encoder: Encoder,
    training_set: Lessons,
    recipe: TextRecipe,
    *,
    folder: Path,
    weights: Path,
    measure: Callable[[Encode], dict[str, float]],
) -> dict[str, Any]:
    """Tune the text encoder, or go on where an earlier run was cut off, and write its weights.

    The prediction is the sum of reference and text features, which AdamW draws to the target's
    (Baldrati et al. 2022, section 4.2). CLIP stays in evaluation mode, its images frozen.

    Parameters
    ----------
    encoder
        In fp32; its text tower is changed in place, so that another run needs it loaded anew.
    lessons
        The training triplets.
    folder
        For the checkpoint and the curve.
    weights
        Gets the tuned weights, safetensors.
    measure
        Given the tuned text encoder, returns metrics, of them "score" to choose by.

    Returns
    -------
    dict
        As `composed_training.run_epochs`.

    Raises
    ------
    ValueError
        If the encoder is not in fp32, or there are fewer triplets than a batch.
    """
    if encoder.precision != "fp32":
        raise ValueError(
            f"tuning needs an encoder in fp32, {encoder.name} is in {encoder.precision}"
        )
    for parameter in encoder.model.parameters():
        parameter.requires_grad_(False)
    chosen = choose_parameters(encoder, recipe.freeze)
    base = {name: parameter.detach().clone() for name, parameter in chosen.items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    if recipe.checkpointing:
        encoder.model.set_grad_checkpointing(True)
    tower = TextTower(encoder.model).eval()
    optimizer = torch.optim.AdamW(
        trained_state(tower).values(),
        lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=1e-7,
    )  # fmt: skip
    scaler = torch.amp.GradScaler(encoder.device.type, enabled=recipe.amp == "fp16")
    step = _Step(tower, optimizer, scaler, encoder, recipe)

    found = run_epochs(
        tower, optimizer, recipe, name=weights.stem, folder=folder, scaler=scaler,
        training_set=training_set.digest(encoder.space),
        take_epoch=lambda rng: _take_epoch(step, training_set, recipe, rng),
        validate=lambda: measure(TextFeatures(encoder).encode_texts),
    )  # fmt: skip
    length, dtype = training_set.image_length, recipe.dtype
    write_text(weights, chosen, base, encoder, image_length=length, dtype=dtype)
    return found


def choose_parameters(encoder: Encoder, freeze: str = "") -> dict[str, torch.nn.Parameter]:
    """Return the text tower's parameters that are tuned, by name.

    Parameters
    ----------
    freeze
        Parts of names, separated by commas, whose parameters stay as they are.

    Raises
    ------
    ValueError
        If a part is in no name, or nothing is left.
    """
    chosen = text_parameters(encoder.model)
    for part in filter(None, freeze.split(",")):
        kept = {name: parameter for name, parameter in chosen.items() if part not in name}
        if len(kept) == len(chosen):
            names = ", ".join(text_parameters(encoder.model))
            raise ValueError(f"freeze={part!r} is in no name of the text tower: {names}")
        chosen = kept
    if not chosen:
        raise ValueError(f"freeze={freeze!r} leaves nothing to tune")
    return chosen


@dataclass(frozen=True)
class _Step:
    """One step down the gradient."""

    tower: TextTower
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    encoder: Encoder
    recipe: TextRecipe

    def __call__(self, references: np.ndarray, targets: np.ndarray, texts: list[str]) -> float:
        device, dtype = self.encoder.device, AMP[self.recipe.amp]
        tokens = self.encoder.tokenize(texts).to(device)
        self.optimizer.zero_grad(set_to_none=True)
        with fast_attention():  # backward too: checkpointing computes the tower again there
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                features = encode_by_length(self.tower, tokens)
            predicted = torch.from_numpy(references).to(device) + features.float()
            loss = contrastive_loss(predicted, torch.from_numpy(targets).to(device))
            self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


def _take_epoch(step: _Step, training_set: Lessons, recipe: TextRecipe, rng) -> float:
    losses = []
    for rows in sample_batches(len(training_set), recipe.batch, rng):
        forms = rng.integers(len(training_set.wordings[0]), size=len(rows))
        texts = [training_set.wordings[row][form] for row, form in zip(rows, forms, strict=True)]
        losses.append(step(training_set.references[rows], training_set.targets[rows], texts))
    return float(np.mean(losses))


Encode_train_combiner = Callable[[list[str]], np.ndarray]


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


def encode_lessons(
    training_set: Lessons, encode_texts: Encode_train_combiner, device
) -> CombinerLessons:
    """Encode every wording of every triplet once."""
    forms = zip(*training_set.wordings, strict=True)
    total = len(training_set.wordings[0])
    texts = [encode_texts(list(form)) for form in progress(forms, "encode wordings", total)]
    arrays = (training_set.references, training_set.targets, np.stack(texts, axis=1))
    return CombinerLessons(*(torch.from_numpy(array).float().to(device) for array in arrays))


def train_combiner(
    encoder: Encoder,
    encode_texts: Encode_train_combiner,
    training_set: Lessons,
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
    inputs = encode_lessons(training_set, encode_texts, encoder.device)
    combiner = create_combiner(encoder.dim, recipe).to(encoder.device)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=recipe.learning_rate)
    found = run_epochs(
        combiner, optimizer, recipe, name=weights.stem, folder=folder,
        training_set=training_set.digest(encoder.space, texts),
        take_epoch=lambda rng: take_epoch(combiner, optimizer, inputs, recipe.batch, rng),
        validate=lambda: measure(combiner),
    )  # fmt: skip
    write_combiner(
        weights, combiner, encoder,
        image_length=training_set.image_length, texts=texts, dtype=recipe.dtype,
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
    training_set: CombinerLessons,
    batch: int,
    rng: np.random.Generator,
) -> float:
    """Train for one epoch, each triplet in one of its wordings; return the mean loss."""
    combiner.train()
    losses = []
    for rows in sample_batches(len(training_set), batch, rng):
        forms = torch.from_numpy(rng.integers(training_set.texts.shape[1], size=len(rows)))
        rows = torch.from_numpy(rows)
        predicted = combiner(training_set.references[rows], training_set.texts[rows, forms])
        loss = contrastive_loss(predicted, training_set.targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))
