"""Batches for training toyclip, drawn at random from a pool of rendered pictures."""

import numpy as np
import torch

from regionlab.toybox.captions import phrase_thing
from regionlab.toybox.pool import Pool
from regionlab.toybox.world import COMBINATIONS, SEEN, Thing

PHRASES = 12  # wordings kept of each combination's name


class Batches:
    """Random batches of a pool; which ones depends on the seed and the step alone."""

    def __init__(self, pool: Pool, tokenizer, preprocess, recipe, device):
        self.pool, self.recipe, self.device = pool, recipe, device
        normalize = preprocess.transforms[-1]
        self.mean, self.std = (
            torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std)
        )
        self.captions = tokenizer([c for five in pool.captions for c in five]).to(torch.int16)
        self.captions = self.captions.view(len(pool.captions), 5, -1)
        self.phrases = _tokenize_names(tokenizer, recipe.seed)
        self.row_of = {COMBINATIONS.index(c): row for row, c in enumerate(SEEN)}

    def draw(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of one step, as tensors on the device."""
        pool, recipe = self.pool, self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        rows = _draw_rows(rng, len(pool.scenes), recipe.batch)
        lone = _draw_rows(rng, len(pool.lone), recipe.lone_batch)
        wordings = rng.integers(PHRASES, size=len(SEEN))
        captions = rng.integers(5, size=len(rows))
        batch = {
            "scenes": self.normalize(pool.scenes[rows], rng),
            "lone": self.normalize(pool.lone[lone], rng),
            "captions": self.captions[rows, captions].long(),
            "names": self.phrases[np.arange(len(SEEN)), wordings].long(),
            "lone_names": self.rows_of_names(pool.lone_names[lone]),
        }
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def rows_of_names(self, combinations: np.ndarray) -> torch.Tensor:
        """Turn rows of `COMBINATIONS` into rows of `SEEN`."""
        return torch.tensor([self.row_of[int(number)] for number in combinations])

    def normalize(self, pictures: np.ndarray, rng=None) -> torch.Tensor:
        """Turn (b, side, side, 3) uint8 into model input; with `rng`, in varied brightness."""
        x = torch.from_numpy(np.array(pictures)).to(self.device)
        x = x.permute(0, 3, 1, 2).float() / 255
        if rng is not None:
            gain = 1 + self.recipe.jitter * rng.uniform(-1, 1, (len(x), 3, 1, 1)).astype(np.float32)
            x = (x * torch.from_numpy(gain).to(self.device)).clamp(0, 1)
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _draw_rows(rng: np.random.Generator, total: int, size: int) -> np.ndarray:
    """Draw rows without replacement, in order, for reading from disk."""
    return np.sort(rng.choice(total, min(size, total), replace=False))


def _tokenize_names(tokenizer, seed: int) -> torch.Tensor:
    """Tokens of some wordings of each seen combination, (combinations, wordings, context)."""
    rng = np.random.default_rng(seed)
    texts = [
        phrase_thing(Thing(*combination, "medium", 0, 0, 1, 0), rng, article=bool(rng.integers(2)))
        for combination in SEEN
        for _ in range(PHRASES)
    ]
    return tokenizer(texts).to(torch.int16).view(len(SEEN), PHRASES, -1)
