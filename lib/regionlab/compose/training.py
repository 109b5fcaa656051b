"""The two stages of S4: tune the text encoder, then train the Combiner on features of CLIP.

Baldrati et al. 2022, sections 4.2 and 4.3, which S4 follows.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from regionlab.compose.benchmark import ComposedFeatures
from regionlab.compose.combiner import LOGIT_SCALE, Combiner, CombinerSize
from regionlab.compose.files import DTYPES, write_combiner, write_text
from regionlab.data.triplets import PUNCTUATION, join_captions
from regionlab.models.clip import (
    TextFeatures,
    TextTower,
    encode_by_length,
    fast_attention,
    text_parameters,
)
from regionlab.models.encoder import Encoder
from regionlab.models.training import run_training
from regionlab.util.errors import InputError, check_choice, check_count
from regionlab.util.progress import progress

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
EncodeTexts = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class _Recipe:
    """What both stages can be told; the defaults of each are those of S4's authors."""

    seed: int = 0
    epochs: int = 100
    batch: int = 512
    learning_rate: float = 2e-6
    validate_every: int = 1  # epochs
    patience: int = 10  # epochs without a better score after which training stops
    dtype: str = "fp16"  # of the file, or "int8"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "validate_every", "patience"):
            check_count(name, getattr(self, name))
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, got {self.learning_rate}")
        check_choice("dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class TextRecipe(_Recipe):
    """How the text encoder is tuned.

    Attributes
    ----------
    freeze : parts of names, separated by commas, of parameters that stay, as "token_embedding"
    amp : mixed precision, "none", "bf16" or "fp16" (with a scaled loss)
    checkpointing : compute activations twice instead of keeping them: less memory, more time
    """

    weight_decay: float = 0.01
    freeze: str = ""
    amp: str = "none"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.amp not in AMP:
            raise InputError(f"unknown amp {self.amp!r}; known: {', '.join(AMP)}")


@dataclass(frozen=True)
class CombinerRecipe(_Recipe):
    """How a Combiner is trained; sizes of its layers are multiples of the features' width."""

    epochs: int = 300
    batch: int = 4096
    learning_rate: float = 2e-5
    projection: int = 4
    hidden: int = 8
    dropout: float = 0.5
    validate_every: int = 3
    patience: int = 30


# Training triplets


@dataclass(frozen=True)
class TrainingSet:
    """Training triplets as features.

    Attributes
    ----------
    references, targets : (m, d) float32, features as long as the model makes them
    wordings : (m, v), the forms that each triplet's captions may be joined to
    image_length : mean length of the features of all training images
    """

    references: np.ndarray
    targets: np.ndarray
    wordings: list[tuple[str, ...]]
    image_length: float

    def __post_init__(self) -> None:
        m, forms = len(self.wordings), {len(w) for w in self.wordings}
        if self.references.shape != self.targets.shape or len(self.references) != m:
            raise ValueError(
                f"{self.references.shape} references, {self.targets.shape} targets and {m} "
                "wordings are not of the same triplets"
            )
        if len(forms) != 1:
            raise ValueError(f"each triplet needs the same number of wordings, got {forms}")

    def __len__(self) -> int:
        return len(self.wordings)

    def digest(self, *about: str) -> str:
        """Return a SHA-256 that tells these triplets, and what is said about them, from others."""
        found = hashlib.sha256(json.dumps([about, self.wordings]).encode())
        for features in (self.references, self.targets):
            found.update(np.ascontiguousarray(features))
        return found.hexdigest()


def make_training_set(sets: Sequence[ComposedFeatures]) -> TrainingSet:
    """Join the triplets of one or several categories; InputError if their targets are hidden."""
    for part in sets:
        if (part.triplets.target_rows < 0).any():
            raise InputError(
                f"nothing can be learnt from {part.triplets.title}: targets are hidden"
            )
    forms = [list_wordings(said) for part in sets for said in part.triplets.queries["captions"]]
    most = max(map(len, forms))
    lengths = np.concatenate([np.linalg.norm(part.vectors, axis=1) for part in sets])
    return TrainingSet(
        np.concatenate([part.references for part in sets]),
        np.concatenate([part.vectors[part.triplets.target_rows] for part in sets]),
        [form * (most // len(form)) for form in forms],
        float(lengths.mean()),
    )


def list_wordings(captions: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that captions are joined to in training, all equally likely.

    One caption stays as it is; two give the four forms of `join_captions`.
    """
    if len(captions) < 2:
        return (join_captions(captions),)
    ordered = [join_captions(pair) for pair in (captions, captions[::-1])]
    return (*ordered, *(caption.strip(PUNCTUATION).capitalize() for caption in captions))


def sample_batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw all triplets once in random order, (batch,) rows at a time, without the rest.

    Raises InputError if there are fewer triplets than one batch holds.
    """
    if count < batch:
        raise InputError(f"{count} triplets do not fill a batch of {batch}: choose a smaller one")
    order = rng.permutation(count)
    return (order[i : i + batch] for i in range(0, count - batch + 1, batch))


# What both stages do


def contrastive_loss(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each query's own target among the batch's, on 100 times the cosine.

    One direction, query to target (Baldrati et al. 2022, equation 1). (b, d) each, of any length.
    """
    logits = LOGIT_SCALE * normalize(predicted, dim=-1) @ normalize(targets, dim=-1).T
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def run_epochs(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Any,
    *,
    name: str,
    folder: Path,
    data: str,
    take_epoch: Callable[[np.random.Generator], float],
    validate: Callable[[], dict[str, float]],
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, Any]:
    """Train until the score no longer rises; the model is left with the weights of the best.

    The checkpoint is `folder`/<name>.pt. `take_epoch` trains for an epoch with random numbers of
    its own, dropout's too, and returns the mean loss; the caller's random numbers are left alone.
    All else as `run_training`.
    """

    def take_turn(turn: int) -> dict[str, float]:
        rng = np.random.default_rng([recipe.seed, turn])
        torch.manual_seed(int(rng.integers(2**63)))
        return {"epoch": turn + 1, "loss": round(take_epoch(rng), 5)}

    def measure() -> dict[str, float]:
        return {key: round(value, 5) for key, value in validate().items()}

    with torch.random.fork_rng():
        return run_training(
            model, optimizer, recipe, turns=recipe.epochs, every=recipe.validate_every,
            unit="epoch", checkpoint=folder / f"{name}.pt", take_turn=take_turn, validate=measure,
            scaler=scaler, patience=recipe.patience, data=data,
        )  # fmt: skip


# Stage 1


def tune_text(
    encoder: Encoder,
    training_set: TrainingSet,
    recipe: TextRecipe,
    *,
    folder: Path,
    weights: Path,
    measure: Callable[[EncodeTexts], dict[str, float]],
) -> dict[str, Any]:
    """Tune the text encoder, or go on where an earlier run was cut off, and write its weights.

    The prediction is the sum of reference and text features, which AdamW draws to the target's.
    CLIP stays in evaluation mode, its images frozen.

    Parameters
    ----------
    encoder
        In fp32, else InputError; its text tower is changed in place, so that another run needs it
        loaded anew.
    folder, weights
        For the checkpoint and the curve; and the safetensors file of the tuned weights.
    measure
        Given the tuned text encoder, returns metrics, of them "score" to choose by.

    Returns
    -------
    dict
        As `run_training`, by epochs.
    """
    if encoder.precision != "fp32":
        raise InputError(
            f"tuning needs an encoder in fp32, {encoder.name} is in {encoder.precision}"
        )
    chosen = choose_parameters(encoder, recipe.freeze)
    base = {name: parameter.detach().clone() for name, parameter in chosen.items()}
    encoder.model.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    if recipe.checkpointing:
        encoder.model.set_grad_checkpointing(True)
    tower = TextTower(encoder.model).eval()
    optimizer = torch.optim.AdamW(
        [p for p in tower.parameters() if p.requires_grad],
        lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=1e-7,
    )  # fmt: skip
    scaler = torch.amp.GradScaler(encoder.device.type, enabled=recipe.amp == "fp16")
    device, dtype = encoder.device, AMP[recipe.amp]

    def take_step(references: np.ndarray, targets: np.ndarray, texts: list[str]) -> float:
        tokens = encoder.tokenize(texts).to(device)
        optimizer.zero_grad(set_to_none=True)
        with fast_attention():  # backward too: checkpointing computes the tower again there
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                features = encode_by_length(tower, tokens)
            predicted = torch.from_numpy(references).to(device) + features.float()
            loss = contrastive_loss(predicted, torch.from_numpy(targets).to(device))
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    def take_epoch(rng: np.random.Generator) -> float:
        losses = []
        for rows in sample_batches(len(training_set), recipe.batch, rng):
            forms = rng.integers(len(training_set.wordings[0]), size=len(rows))
            texts = [training_set.wordings[row][f] for row, f in zip(rows, forms, strict=True)]
            losses.append(
                take_step(training_set.references[rows], training_set.targets[rows], texts)
            )
        return float(np.mean(losses))

    found = run_epochs(
        tower, optimizer, recipe, name=weights.stem, folder=folder, scaler=scaler,
        data=training_set.digest(encoder.space), take_epoch=take_epoch,
        validate=lambda: measure(TextFeatures(encoder).encode_texts),
    )  # fmt: skip
    length = training_set.image_length
    write_text(weights, chosen, base, encoder, image_length=length, dtype=recipe.dtype)
    return found


def choose_parameters(encoder: Encoder, freeze: str = "") -> dict[str, torch.nn.Parameter]:
    """Return the text tower's parameters that are tuned, by name; `freeze` as in `TextRecipe`.

    Raises InputError if a part is in no name, or nothing is left.
    """
    chosen = text_parameters(encoder.model)
    for part in filter(None, freeze.split(",")):
        kept = {name: parameter for name, parameter in chosen.items() if part not in name}
        if len(kept) == len(chosen):
            names = ", ".join(text_parameters(encoder.model))
            raise InputError(f"freeze={part!r} is in no name of the text tower: {names}")
        chosen = kept
    if not chosen:
        raise InputError(f"freeze={freeze!r} leaves nothing to tune")
    return chosen


# Stage 2


@dataclass(frozen=True)
class EncodedTriplets:
    """Training triplets as tensors: (m, d) references and targets, (m, v, d) texts."""

    references: torch.Tensor
    targets: torch.Tensor
    texts: torch.Tensor

    def __len__(self) -> int:
        return len(self.references)


def encode_wordings(
    training_set: TrainingSet, encode_texts: EncodeTexts, device
) -> EncodedTriplets:
    """Encode every wording of every triplet once."""
    forms = zip(*training_set.wordings, strict=True)
    total = len(training_set.wordings[0])
    texts = [encode_texts(list(form)) for form in progress(forms, "encode wordings", total)]
    arrays = (training_set.references, training_set.targets, np.stack(texts, axis=1))
    return EncodedTriplets(*(torch.from_numpy(array).float().to(device) for array in arrays))


def train_combiner(
    encoder: Encoder,
    encode_texts: EncodeTexts,
    training_set: TrainingSet,
    recipe: CombinerRecipe,
    *,
    folder: Path,
    weights: Path,
    measure: Callable[[Combiner], dict[str, float]],
    texts: str = "",
) -> dict[str, Any]:
    """Train a Combiner, or go on where an earlier run was cut off, and write its weights.

    `encode_texts` is frozen or tuned, to features as long as it makes them; if it is tuned,
    `texts` is the SHA-256 of its file. `measure` is given the Combiner. All else, and what is
    returned, as `tune_text`.
    """
    inputs = encode_wordings(training_set, encode_texts, encoder.device)
    combiner = create_combiner(encoder.dim, recipe).to(encoder.device)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=recipe.learning_rate)
    found = run_epochs(
        combiner, optimizer, recipe, name=weights.stem, folder=folder,
        data=training_set.digest(encoder.space, texts),
        take_epoch=lambda rng: take_epoch(combiner, optimizer, inputs, recipe.batch, rng),
        validate=lambda: measure(combiner),
    )  # fmt: skip
    length = training_set.image_length
    write_combiner(weights, combiner, encoder, image_length=length, texts=texts, dtype=recipe.dtype)
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
    triplets: EncodedTriplets,
    batch: int,
    rng: np.random.Generator,
) -> float:
    """Train for one epoch, each triplet in one of its wordings; return the mean loss."""
    combiner.train()
    losses = []
    for rows in sample_batches(len(triplets), batch, rng):
        forms = torch.from_numpy(rng.integers(triplets.texts.shape[1], size=len(rows)))
        rows = torch.from_numpy(rows)
        predicted = combiner(triplets.references[rows], triplets.texts[rows, forms])
        loss = contrastive_loss(predicted, triplets.targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))
