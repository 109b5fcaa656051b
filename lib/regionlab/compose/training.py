"""What the two stages of composed retrieval share: epochs, validation, checkpoints, the best."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm

from regionlab.compose.combiner import LOGIT_SCALE
from regionlab.util.checks import check_choice, check_count
from regionlab.util.files import write_json

SCALE, ROWS = ".scale", ".rows"  # endings of the tensors that go with a compact one
DTYPES = ("fp16", "int8")
Tensors = dict[str, torch.Tensor]


def pack(tensors: Mapping[str, torch.Tensor], dtype: str) -> Tensors:
    """Make tensors small; vectors stay in fp16.

    Parameters
    ----------
    tensors
        By name.
    dtype
        "fp16"; or "int8", each row of a matrix as whole numbers in [-127, 127] times a scale.

    Raises
    ------
    ValueError
        If `dtype` is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    packed: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().float().cpu().contiguous()
        if dtype == "fp16" or tensor.ndim < 2:
            packed[name] = tensor.half()
        else:
            scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            packed[name] = (tensor / scale).round().to(torch.int8)
            packed[name + SCALE] = scale
    return packed


def unpack(packed: Mapping[str, torch.Tensor]) -> Tensors:
    """Return what `pack` was given, in fp32, as near as its type allows."""
    return {
        name: tensor.float() * packed.get(name + SCALE, torch.ones(()))
        for name, tensor in packed.items()
        if not name.endswith((SCALE, ROWS))
    }


def take_changes(tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return how tuned weights differ from the base: of a matrix, the rows that do, and which.

    A weight that did not change is left out.
    """
    changes: Tensors = {}
    for name, tensor in tuned.items():
        change = tensor.detach().float().cpu() - base[name].detach().float().cpu()
        if change.ndim == 2:
            rows = change.abs().amax(1).nonzero().ravel().int()
            if len(rows):
                changes |= {name: change[rows], name + ROWS: rows}
        elif change.abs().max() > 0:
            changes[name] = change
    return changes


def pack_changes(
    tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], dtype: str
) -> Tensors:
    """Pack the changes from base to tuned weights."""
    changes = take_changes(tuned, base)
    rows = {name: tensor for name, tensor in changes.items() if name.endswith(ROWS)}
    values = {name: tensor for name, tensor in changes.items() if name not in rows}
    return pack(values, dtype) | rows


def apply_changes(packed: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tuned weights, fp32, of packed changes and the base.

    Raises
    ------
    ValueError
        If the base has no such weight, or of another shape.
    """
    tuned: Tensors = {}
    for name, change in unpack(packed).items():
        if name not in base:
            raise ValueError(f"the model has no weight {name!r}")
        own, rows = base[name].detach().float().cpu(), packed.get(name + ROWS)
        expected = own.shape if rows is None else (len(rows), *own.shape[1:])
        try:
            if change.shape != expected:
                raise IndexError(f"expected {tuple(expected)}")
            tuned[name] = own + change if rows is None else own.index_add(0, rows.long(), change)
        except (RuntimeError, IndexError) as e:
            found = tuple(change.shape)
            raise ValueError(f"a change of shape {found} does not fit {name}: {e}") from e
    return tuned


@dataclass(frozen=True)
class Lessons:
    """Training triplets as features: (m, d) of references and targets, and (m, v) wordings.

    Attributes
    ----------
    references, targets
        (m, d) float32, features of the images as long as the model makes them.
    wordings
        For each triplet the forms that its captions may be joined to; all have the same number.
    image_length
        Mean length of the features of all training images.
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
        """Return a SHA-256 that tells these lessons, and what is said about them, from others."""
        found = hashlib.sha256(json.dumps([about, self.wordings]).encode())
        for features in (self.references, self.targets):
            found.update(np.ascontiguousarray(features))
        return found.hexdigest()


def check_recipe(recipe: Any) -> None:
    """Raise ValueError if a setting that both stages have is out of its range."""
    for name in ("epochs", "batch", "validate_every", "patience"):
        check_count(name, getattr(recipe, name))
    if not 0 < recipe.learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive, got {recipe.learning_rate}")
    check_choice("dtype", recipe.dtype, DTYPES)


def contrastive_loss(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each query's own target among the batch's, on 100 times the cosine.

    One direction, query to target (Baldrati et al. 2022, equation 1). (b, d) each, of any length.
    """
    logits = LOGIT_SCALE * normalize(predicted, dim=-1) @ normalize(targets, dim=-1).T
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def sample_batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw all triplets once in random order, (batch,) rows at a time, without the rest.

    Raises
    ------
    ValueError
        If there are fewer triplets than one batch holds.
    """
    if count < batch:
        raise ValueError(f"{count} triplets do not fill a batch of {batch}: choose a smaller one")
    order = rng.permutation(count)
    return (order[i : i + batch] for i in range(0, count - batch + 1, batch))


def run_epochs(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Any,
    *,
    name: str,
    folder: Path,
    training_set: str,
    take_epoch: Callable[[np.random.Generator], float],
    validate: Callable[[], dict[str, float]],
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, Any]:
    """Train until the score no longer rises, or go on where an earlier run was cut off.

    A run that was cut off and goes on ends with the same weights as one that was not. The model
    is left with the weights of the best validation.

    Parameters
    ----------
    recipe
        A dataclass with at least seed, epochs, validate_every and patience.
    name
        Of the part that is trained: its checkpoint is `folder`/<name>.pt, its curve
        `folder`/<name>.json.
    lessons
        A digest of what is learnt from; a checkpoint of another is not taken up.
    take_epoch
        Trains for one epoch with the random numbers it is given, returns the mean loss.
    validate
        Returns metrics, of them "score" to choose by, higher is better.

    Returns
    -------
    dict
        recipe, device, epochs, seconds, best_epoch, curve (loss of each epoch) and validation.
    """
    path = folder / f"{name}.pt"
    state, best = _load(path, model, optimizer, scaler, recipe, training_set)
    started = time.monotonic() - state["seconds"]
    with tqdm(total=recipe.epochs, desc=name, initial=state["epochs"], mininterval=2) as bar:
        while state["epochs"] < recipe.epochs and not _is_over(state, recipe):
            epoch = state["epochs"]
            with _seeded(recipe.seed, epoch) as rng:
                loss = take_epoch(rng)
            if not np.isfinite(loss):
                raise FloatingPointError(f"{name}: the loss of epoch {epoch + 1} is {loss}")
            state["epochs"] = epoch + 1
            state["curve"].append({"epoch": epoch + 1, "loss": round(loss, 5)})
            if (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs:
                found = {key: round(value, 5) for key, value in validate().items()}
                state["validation"].append({"epoch": epoch + 1, **found})
                if state["best_epoch"] == 0 or found["score"] > state["best_score"]:
                    state |= {"best_epoch": epoch + 1, "best_score": found["score"]}
                    best = {key: t.detach().clone() for key, t in trained_state(model).items()}
                bar.set_postfix(loss=f"{loss:.3f}", score=f"{found['score']:.3f}")
            state["seconds"] = time.monotonic() - started
            _save(path, model, optimizer, scaler, recipe, training_set, state, best)
            bar.update()
    model.load_state_dict(best, strict=False)
    return {"recipe": asdict(recipe), "device": str(next(model.parameters()).device), **state}


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _is_over(state: dict[str, Any], recipe) -> bool:
    return state["best_epoch"] > 0 and state["epochs"] - state["best_epoch"] >= recipe.patience


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[np.random.Generator]:
    """Give an epoch random numbers of its own, dropout's too, and leave the caller's alone."""
    rng = np.random.default_rng([seed, epoch])
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**63)))
        yield rng


# Checkpoints


def _load(
    path: Path, model, optimizer, scaler, recipe, training_set
) -> tuple[dict[str, Any], dict]:
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if (saved["recipe"], saved.get("lessons")) == (json.dumps(asdict(recipe)), training_set):
            model.load_state_dict(saved["model"], strict=False)
            optimizer.load_state_dict(saved["optimizer"])
            if scaler is not None and saved["scaler"]:
                scaler.load_state_dict(saved["scaler"])
            return saved["state"], saved["best"]
        print(f"{path} is of another recipe or other triplets: training starts over")
    empty = {"epochs": 0, "seconds": 0.0, "best_epoch": 0, "best_score": 0.0}
    return empty | {"curve": [], "validation": []}, {}


def _save(path: Path, model, optimizer, scaler, recipe, training_set, state, best) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"recipe": json.dumps(asdict(recipe)), "lessons": training_set,
             "state": state, "best": best,
             "model": {key: t.detach() for key, t in trained_state(model).items()},
             "optimizer": optimizer.state_dict(),
             "scaler": scaler.state_dict() if scaler is not None else None}  # fmt: skip
    torch.save(saved, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    write_json(path.with_suffix(".json"), {"recipe": asdict(recipe), **state})
