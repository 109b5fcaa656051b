"""What training the Toybox models shares: the loop, its schedule, checkpoints and weights files."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

Losses = dict[str, float]


def run_training(
    model: torch.nn.Module,
    recipe: Any,
    *,
    name: str,
    cache: Path,
    weights: Path,
    take_step: Callable[[torch.optim.Optimizer, int], Losses],
    validate: Callable[[], dict[str, float]],
) -> dict:
    """Train a model, or go on where an earlier run was cut off, and write its weights.

    Parameters
    ----------
    recipe
        A dataclass with at least steps, learning_rate, warmup, weight_decay and save_every.
    name
        Of the model: its checkpoint goes to `cache`/`name`.
    weights
        Where the finished weights go, as safetensors in fp16.
    take_step
        Changes the model by one step of the optimizer and returns its losses.
    validate
        Measures the model; called every `save_every` steps.

    Returns
    -------
    dict
        recipe, device, step, seconds, curve (the losses of each step) and validation.
    """
    optimizer = make_optimizer(model, recipe)
    state = load_checkpoint(cache / name, model, optimizer, recipe)
    steps = range(state["step"], recipe.steps)
    bar = tqdm(steps, name, initial=state["step"], total=recipe.steps, mininterval=5)
    started = time.monotonic() - state["seconds"]
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        losses = take_step(optimizer, step)
        state["curve"].append({"step": step, **losses})
        bar.set_postfix({key: f"{loss:.2f}" for key, loss in losses.items()}, refresh=False)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            found = validate()
            state["validation"].append({"step": step + 1, **found})
            bar.write(f"step {step + 1}: {losses} {found}")
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            save_checkpoint(cache / name, model, optimizer, recipe, state)
    write_weights(model, weights)
    device = next(model.parameters()).device
    return {"recipe": asdict(recipe), "device": str(device), **state}


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
    start, end = (recipe.warmup, restart or recipe.steps)
    if step < recipe.warmup:
        return height * (step + 1) / recipe.warmup
    if restart and step >= restart:
        start, end, height = restart, recipe.steps, height / 2
    done = (step - start) / max(end - start, 1)
    return height * 0.5 * (1 + math.cos(math.pi * done))


def load_checkpoint(folder: Path, model, optimizer, recipe) -> dict:
    """Put model and optimizer where a run of the same recipe stopped; return its state."""
    path = folder / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["recipe"] == asdict(recipe):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["rng"])
            return saved["state"]
        print(f"{path} is of another recipe: training starts over")
    return {"step": 0, "seconds": 0.0, "curve": [], "validation": []}


def save_checkpoint(folder: Path, model, optimizer, recipe, state: dict) -> None:
    """Write what `load_checkpoint` reads, and the curve so far as JSON for people."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {"recipe": asdict(recipe), "state": state, "model": model.state_dict(),
             "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}  # fmt: skip
    torch.save(saved, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / "checkpoint.pt")
    (folder / "curve.json").write_text(json.dumps(state))


def write_weights(model, path: Path) -> None:
    """Write a model's weights as safetensors, matrices in fp16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (t.half() if t.ndim > 1 else t).cpu().contiguous()  # the few others stay exact
        for name, t in model.state_dict().items()
    }
    path.with_suffix(".tmp").write_bytes(save(tensors, metadata={"format": "pt"}))
    path.with_suffix(".tmp").replace(path)
