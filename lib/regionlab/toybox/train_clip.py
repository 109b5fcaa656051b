"""Train toyclip: open_clip's CLIP from random weights on Toybox's training scenes.

Two contrastive losses share one batch. Scenes against their captions (CLIP, Radford et al.
2021, symmetric cross-entropy); and things by themselves (erased, cropped, blurred around)
against the names of all combinations, as a region would be shown to CLIP and asked for.
"""

import json
import math
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm

from regionlab.paths import DATA
from regionlab.toybox.batches import Batches
from regionlab.toybox.pool import Pool, open_pool
from regionlab.toybox.toyclip import WEIGHTS, create_toyclip

CACHE = DATA / "toybox" / "cache"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the weights become."""

    seed: int = 0
    scenes: int = 40_000
    steps: int = 1_600
    batch: int = 160
    lone_batch: int = 96
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    name_weight: float = 1.0
    jitter: float = 0.12
    save_every: int = 100


def train(recipe: Recipe, *, cache: Path = CACHE, weights: Path = WEIGHTS) -> dict:
    """Train toyclip, or go on where an earlier run was cut off, and write its weights.

    Parameters
    ----------
    recipe
        Data, model-independent settings and seed.
    cache
        For the rendered pictures, and the checkpoint with the loss curve so far.
    weights
        Where the finished weights go, as safetensors in fp16.

    Returns
    -------
    dict
        recipe, device, step, seconds (of training, without rendering), curve (the losses of
        each step) and validation (text-to-image hit@1 on up to 500 scenes).
    """
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, preprocess, tokenizer = create_toyclip()
    model.to(device, memory_format=torch.channels_last)  # convolutions in bf16 are 10 times faster
    pools = {
        split: open_pool(cache / f"pool-{split}", seed=recipe.seed, split=split, count=count,
                         side=_side(model))
        for split, count in (("train", recipe.scenes), ("val", min(500, recipe.scenes)))
    }  # fmt: skip
    batches = Batches(pools["train"], tokenizer, preprocess, recipe, device)
    optimizer = _make_optimizer(model, recipe)
    state = _load_checkpoint(cache / "toyclip", model, optimizer, recipe)
    progress = tqdm(range(state["step"], recipe.steps), initial=state["step"], total=recipe.steps,
                    desc="toyclip", mininterval=5)  # fmt: skip
    started = time.monotonic() - state["seconds"]
    for step in progress:
        rate = _learning_rate(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = _train_step(model, optimizer, batches.draw(step), recipe)
        state["curve"].append({"step": step, **losses})
        shown = {name: f"{value:.2f}" for name, value in losses.items()}
        progress.set_postfix(shown, refresh=False)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            hit = validate(model, pools["val"], tokenizer, batches)
            state["validation"].append({"step": step + 1, "hit@1": hit})
            progress.write(f"step {step + 1}: {losses} val hit@1 {hit:.3f}")
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            _save_checkpoint(cache / "toyclip", model, optimizer, recipe, state)
    _write_weights(model, weights)
    return {"recipe": asdict(recipe), "device": str(device), **state}


# One step


def _train_step(model, optimizer, batch: dict, recipe: Recipe) -> dict[str, float]:
    model.train()
    pictures = torch.cat([batch["scenes"], batch["lone"]])  # one batch, so one batch norm
    with _fast_attention(), torch.autocast(pictures.device.type, dtype=torch.bfloat16):
        scenes, lone = model.visual(pictures).split([len(batch["scenes"]), len(batch["lone"])])
        captions = encode_tokens(model, batch["captions"])
        names = encode_tokens(model, batch["names"])
    scale = model.logit_scale.exp()
    losses = {
        "captions": _clip_loss(scenes, captions, scale),
        "lone": cross_entropy(scale * _unit(lone) @ _unit(names).T, batch["lone_names"]),
    }
    total = losses["captions"] + recipe.name_weight * losses["lone"]
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return normalize(vectors.float(), dim=-1)


def _clip_loss(images, texts, scale) -> torch.Tensor:
    logits = scale * _unit(images) @ _unit(texts).T
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def encode_tokens(model, tokens: torch.Tensor) -> torch.Tensor:
    """Encode texts as `model.encode_text` does, but only as far as the longest of them reaches.

    Under the causal mask what follows the end token changes nothing, so it need not be computed.

    Parameters
    ----------
    tokens
        (n, context) int64, zero-padded.

    Returns
    -------
    torch.Tensor
        (n, d), not normalised.
    """
    length = int(tokens.argmax(-1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection


@contextmanager
def _fast_attention():
    """On a CPU the plain attention trains faster than the fused one: its backward is slow."""
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


# Validation, schedule and files


@torch.inference_mode()
def validate(model, pool: Pool, tokenizer, batches: Batches) -> float:
    """Return text-to-image hit@1 on a pool: one caption each, all its scenes as gallery."""
    model.eval()
    pictures = [
        batches.normalize(pool.scenes[i : i + 100]) for i in range(0, len(pool.scenes), 100)
    ]
    images = torch.cat([_unit(model.encode_image(p)) for p in pictures])
    rng = np.random.default_rng(0)
    texts = [five[int(rng.integers(5))] for five in pool.captions]
    texts = _unit(encode_tokens(model, tokenizer(texts).to(images.device)))
    best = (texts @ images.T).argmax(1).cpu()
    return float((best == torch.arange(len(best))).float().mean())


def _side(model) -> int:
    """Pixels of a side of the pictures that the model takes."""
    size = model.visual.image_size
    return size[0] if isinstance(size, tuple) else size


def _make_optimizer(model, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay},
              {"params": kept, "weight_decay": 0.0}]  # fmt: skip
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Warm up linearly, then fall along a cosine to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _load_checkpoint(folder: Path, model, optimizer, recipe: Recipe) -> dict:
    path = folder / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["recipe"] == asdict(recipe):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            return saved["state"]
        print(f"{path} is of another recipe: training starts over")
    return {"step": 0, "seconds": 0.0, "curve": [], "validation": []}


def _save_checkpoint(folder: Path, model, optimizer, recipe: Recipe, state: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    saved = {"recipe": asdict(recipe), "state": state, "model": model.state_dict(),
             "optimizer": optimizer.state_dict()}  # fmt: skip
    torch.save(saved, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / "checkpoint.pt")
    (folder / "curve.json").write_text(json.dumps(state))


def _write_weights(model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (t.half() if t.ndim > 1 else t).cpu().contiguous()  # the few others stay exact
        for name, t in model.state_dict().items()
    }
    path.with_suffix(".tmp").write_bytes(save(tensors, metadata={"format": "pt"}))
    path.with_suffix(".tmp").replace(path)
