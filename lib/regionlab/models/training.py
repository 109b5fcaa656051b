"""Train a model: one loop with validation, checkpoints and resume; optimizer, schedule, weights."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

from regionlab.util.errors import RegionlabError
from regionlab.util.files import atomic_write, write_json

Tensors = dict[str, torch.Tensor]


class TrainingError(RegionlabError, FloatingPointError):
    """Training that cannot go on: a loss is not finite."""


def run_training(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Any,
    *,
    turns: int,
    every: int,
    unit: str,
    checkpoint: Path,
    take_turn: Callable[[int], dict[str, float]],
    validate: Callable[[], dict[str, float]],
    schedule: Callable[[int], float] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    patience: float = math.inf,
    data: str = "",
) -> dict[str, Any]:
    """Train a model, or go on where an earlier run was cut off.

    A run that was cut off and goes on ends with the same weights as one that was not.

    Parameters
    ----------
    recipe
        A dataclass; a checkpoint of another recipe, or of other `data`, is not taken up.
    turns, every
        How many turns to take, and after how many to validate and write the checkpoint.
    unit
        What a turn is, "step" or "epoch": names the numbers in the result.
    checkpoint
        The file that a run is taken up from; the curve lies beside it as JSON.
    take_turn
        Given how many turns were taken before, trains for one more and returns its losses with
        their number, a row of the curve.
    validate
        Returns metrics; if "score", higher is better, is among them, the weights of the best
        are kept.
    schedule
        Turn to learning rate; by default that of the optimizer, unchanged.
    patience
        Turns without a better score after which training stops.
    data
        What tells the training data from others, such as a digest.

    Returns
    -------
    dict
        recipe, device, `unit` (turns taken), seconds, curve and validation (a row each),
        best_`unit` and best_score (0 without scores).

    Raises
    ------
    TrainingError
        If a loss is not finite; the checkpoint is that of the last good turns.
    """
    about, best_at = {"recipe": asdict(recipe), "data": data}, f"best_{unit}"
    empty = {unit: 0, "seconds": 0.0, best_at: 0, "best_score": 0.0, "curve": [], "validation": []}
    state, best = _load(checkpoint, model, optimizer, scaler, about) or (empty, {})
    started = time.monotonic() - state["seconds"]
    with tqdm(total=turns, desc=checkpoint.stem, initial=state[unit], mininterval=5) as bar:
        for turn in range(state[unit], turns):
            if state[best_at] and turn - state[best_at] >= patience:
                break
            for group in optimizer.param_groups if schedule else ():
                group["lr"] = schedule(turn)
            row = take_turn(turn)
            _check_finite(row, f"{checkpoint.stem}: the loss of {unit} {turn + 1}")
            state["curve"].append(row)
            state[unit] = turn + 1
            bar.update()
            bar.set_postfix(row, refresh=False)
            if (turn + 1) % every and turn + 1 < turns:
                continue
            found = validate()
            state["validation"].append({unit: turn + 1, **found})
            if "score" in found and (not state[best_at] or found["score"] > state["best_score"]):
                state |= {best_at: turn + 1, "best_score": found["score"]}
                best = {name: t.detach().clone() for name, t in _trained_state(model).items()}
            state["seconds"] = time.monotonic() - started
            _save(checkpoint, model, optimizer, scaler, about, state, best)
    model.load_state_dict(best, strict=False)
    return {"recipe": asdict(recipe), "device": str(next(model.parameters()).device), **state}


def run_steps(
    model: torch.nn.Module,
    recipe: Any,
    *,
    checkpoint: Path,
    weights: Path,
    take_step: Callable[[torch.optim.Optimizer, int], dict[str, float]],
    validate: Callable[[], dict[str, float]],
) -> dict[str, Any]:
    """Train by steps of AdamW, warmed up and annealed, and write the last weights in fp16.

    The recipe has steps, learning_rate, warmup, weight_decay and save_every, and may have restart,
    see `learning_rate`. `take_step` is given optimizer and number of a step, and returns its
    losses; `weights` is a safetensors file. All else as `run_training`.
    """
    optimizer = make_optimizer(model, recipe)
    found = run_training(
        model, optimizer, recipe, turns=recipe.steps, every=recipe.save_every, unit="step",
        checkpoint=checkpoint, take_turn=lambda step: {"step": step, **take_step(optimizer, step)},
        validate=validate, schedule=lambda step: learning_rate(recipe, step),
    )  # fmt: skip
    _write_weights(model, weights)
    return found


def descend(model, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Take one step down the gradient, its norm cut at 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def make_optimizer(model, recipe) -> torch.optim.Optimizer:
    """Return AdamW, without weight decay on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay},
              {"params": kept, "weight_decay": 0.0}]  # fmt: skip
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def learning_rate(recipe, step: int) -> float:
    """Warm up linearly, then fall along a cosine to zero.

    With a `restart` above 0 in the recipe it falls to zero there, and once more from half the
    height (Loshchilov and Hutter 2017).
    """
    restart, height = getattr(recipe, "restart", 0), recipe.learning_rate
    if step < recipe.warmup:
        return height * (step + 1) / recipe.warmup
    start, end = recipe.warmup, restart or recipe.steps
    if restart and step >= restart:
        start, end, height = restart, recipe.steps, height / 2
    done = (step - start) / max(end - start, 1)
    return height * 0.5 * (1 + math.cos(math.pi * done))


def _check_finite(row: Mapping[str, float], what: str) -> None:
    for value in row.values():
        if not math.isfinite(value):
            raise TrainingError(f"{what} is {value}")


def _trained_state(model: torch.nn.Module) -> Tensors:
    """Return what training changes, by name: the state without frozen parameters."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: t for name, t in model.state_dict().items() if name not in frozen}


def _load(path: Path, model, optimizer, scaler, about) -> tuple[dict[str, Any], Tensors] | None:
    """Put everything where a run of the same recipe and data stopped; return its state."""
    if not path.exists():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved.get("about") != about:
        others = " or other triplets" if about["data"] else ""
        print(f"{path} is of another recipe{others}: training starts over")
        return None
    model.load_state_dict(saved["model"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    if scaler is not None and saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])
    torch.set_rng_state(saved["rng"])
    return saved["state"], saved["best"]


def _save(path: Path, model, optimizer, scaler, about, state, best) -> None:
    """Write what `_load` reads, and the curve so far as JSON for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"about": about, "state": state, "best": best, "model": _trained_state(model),
             "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
             "scaler": scaler.state_dict() if scaler is not None else None}  # fmt: skip
    with atomic_write(path, "wb") as file:
        torch.save(saved, file)
    write_json(path.with_suffix(".json"), {"recipe": about["recipe"], **state})


def _write_weights(model, path: Path) -> None:
    """Write a model's weights as safetensors, matrices in fp16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (t.half() if t.ndim > 1 else t).cpu().contiguous()  # the few others stay exact
        for name, t in model.state_dict().items()
    }
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={"format": "pt"}))
