"""Trained parts of composed retrieval on disk: the tuned text encoder and the Combiners.

Safetensors files that name, in their metadata, the weights of CLIP that they belong to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from regionlab.compose.combiner import Combiner, CombinerSize
from regionlab.models.clip import TextFeatures
from regionlab.models.encoder import Encoder
from regionlab.models.weights import WeightsError
from regionlab.util.errors import InputError
from regionlab.util.files import atomic_write, hash_file
from regionlab.util.paths import DATA, expand

TOYBOX = DATA / "toybox"
TEXT = "composed_text"
COMBINERS = {"combiner": "composed_combiner", "fine_tuned_combiner": "composed_tuned_combiner"}
DTYPES = ("fp16", "int8")
SCALE, ROWS = ".scale", ".rows"  # endings of the tensors that go with a quantized one

Tensors = dict[str, torch.Tensor]


# Small tensors


def quantize(tensors: Mapping[str, torch.Tensor], dtype: str) -> Tensors:
    """Make tensors small: "fp16"; or "int8", each row of a matrix as [-127, 127] times a scale.

    Vectors stay in fp16. Raises InputError if `dtype` is unknown.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    small: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().float().cpu().contiguous()
        if dtype == "fp16" or tensor.ndim < 2:
            small[name] = tensor.half()
        else:
            scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            small[name] = (tensor / scale).round().to(torch.int8)
            small[name + SCALE] = scale
    return small


def dequantize(small: Mapping[str, torch.Tensor]) -> Tensors:
    """Return what `quantize` was given, in fp32, as near as its type allows."""
    return {
        name: tensor.float() * small.get(name + SCALE, torch.ones(()))
        for name, tensor in small.items()
        if not name.endswith((SCALE, ROWS))
    }


def find_changes(tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return tuned weights less the base: of a matrix, the rows that differ, and which.

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


def quantize_changes(
    tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], dtype: str
) -> Tensors:
    """Return the changes from base to tuned weights, made small; which rows they are is exact."""
    changes = find_changes(tuned, base)
    rows = {name: tensor for name, tensor in changes.items() if name.endswith(ROWS)}
    values = {name: tensor for name, tensor in changes.items() if name not in rows}
    return quantize(values, dtype) | rows


def apply_changes(small: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tuned weights, fp32, of `quantize_changes` and the base.

    Raises ValueError if the base has no such weight, or of another shape.
    """
    tuned: Tensors = {}
    for name, change in dequantize(small).items():
        if name not in base:
            raise ValueError(f"the model has no weight {name!r}")
        own, rows = base[name].detach().float().cpu(), small.get(name + ROWS)
        expected = own.shape if rows is None else (len(rows), *own.shape[1:])
        try:
            if change.shape != expected:
                raise IndexError(f"expected {tuple(expected)}")
            tuned[name] = own + change if rows is None else own.index_add(0, rows.long(), change)
        except (RuntimeError, IndexError) as e:
            found = tuple(change.shape)
            raise ValueError(f"a change of shape {found} does not fit {name}: {e}") from e
    return tuned


# Files


def write_text(
    path: Path,
    tuned: Mapping[str, torch.Tensor],
    base: Mapping[str, torch.Tensor],
    encoder: Encoder,
    *,
    image_length: float,
    dtype: str = "fp16",
) -> None:
    """Write a tuned text encoder as what changed of the encoder's own weights.

    `tuned` and `base` are name in the model's state to tensor, after and before it was tuned;
    `image_length` is the mean length of the encoder's features of the training images; for
    `dtype` see `quantize`.
    """
    _write(path, quantize_changes(tuned, base, dtype), encoder, image_length=image_length)


def write_combiner(
    path: Path,
    combiner: Combiner,
    encoder: Encoder,
    *,
    image_length: float,
    texts: str,
    dtype: str = "fp16",
) -> None:
    """Write a Combiner; `texts` is the SHA-256 of the tuned text file it learnt with, or "".

    Else as `write_text`.
    """
    about = {"size": json.dumps(asdict(combiner.size)), "texts": texts}
    small = quantize(combiner.state_dict(), dtype)
    _write(path, small, encoder, image_length=image_length, **about)


def _write(path: Path, small: Mapping, encoder: Encoder, *, image_length: float, **about) -> None:
    metadata = {"clip": encoder.space, "model": encoder.fingerprint["model"],
                "image_length": repr(float(image_length)), **about}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        file.write(_sort_metadata(save(dict(small), metadata=metadata)))


def _sort_metadata(file: bytes) -> bytes:
    """Order the metadata, which safetensors writes in any: equal weights make equal files."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


class TrainedParts:
    """The trained parts in a folder, by default Toybox's, loaded as they are asked for.

    What is missing, damaged, of another encoder or of another tuned text encoder raises
    WeightsError.
    """

    def __init__(self, encoder: Encoder, folder: Path | str | None = None):
        self.encoder, self.folder = encoder, expand(folder or TOYBOX)

    def path(self, name: str) -> Path:
        """Return where a part lies: `TEXT`, or a composer's name in `COMBINERS`."""
        return self.folder / f"{COMBINERS.get(name, name)}.safetensors"

    def load_text(self) -> TextFeatures:
        """Load the tuned text encoder."""
        small, _ = self._read(TEXT)
        try:
            base = dict(self.encoder.model.named_parameters())
            return TextFeatures(self.encoder, apply_changes(small, base))
        except ValueError as e:
            raise WeightsError(f"{self.path(TEXT)} does not fit: {e}") from e

    def load_combiner(self, name: str) -> Combiner:
        """Load a Combiner, "combiner" or "fine_tuned_combiner"."""
        tensors, about = self._read(name)
        try:
            with torch.device("meta"):  # draws no random numbers for weights that are not kept
                combiner = Combiner(CombinerSize(**json.loads(about["size"])))
            combiner.load_state_dict(dequantize(tensors), assign=True)
        except (KeyError, RuntimeError, TypeError, ValueError) as e:
            raise WeightsError(f"{self.path(name)} is no Combiner: {e}") from e
        if about["texts"] != self._identify_texts(name):
            raise WeightsError(
                f"{self.path(name)} learnt with another text encoder than {name} has here, frozen "
                f"or {self.path(TEXT)}: train the Combiner again"
            )
        return combiner.to(self.encoder.device).eval()

    @cached_property
    def image_length(self) -> float:
        """Mean length of the encoder's features of the training images."""
        name = next((n for n in (TEXT, *COMBINERS) if self.path(n).is_file()), TEXT)
        try:
            return float(self._read(name)[1]["image_length"])
        except WeightsError as e:
            raise WeightsError(f"image_length is not given, nor known from training: {e}") from e

    def _identify_texts(self, name: str) -> str:
        """Return the SHA-256 of the tuned text file that a Combiner goes with; "" for none."""
        if name != "fine_tuned_combiner":
            return ""
        self._check_there(self.path(TEXT))
        return hash_file(self.path(TEXT))

    def _read(self, name: str) -> tuple[Tensors, dict[str, str]]:
        path = self.path(name)
        self._check_there(path)
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except SafetensorError as e:
            raise WeightsError(f"{path} is damaged: {e}") from e
        if about.get("clip") != self.encoder.space:
            raise WeightsError(
                f"{path} was trained on {about.get('model', 'no encoder of ours')}, whose features "
                f"are not those of {self.encoder.name} as it is loaded here (weights, padding): "
                "train on it, or give another folder"
            )
        return tensors, about

    def _check_there(self, path: Path) -> None:
        if not path.is_file():
            raise WeightsError(
                f"there is no {path}: train it by `regionlab compose train`, or give the folder of "
                f"what was trained on {self.encoder.name}"
            )
