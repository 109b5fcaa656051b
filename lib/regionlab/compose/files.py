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
from regionlab.compose.training import apply_changes, pack, pack_changes, unpack
from regionlab.models.encoder import Encoder
from regionlab.models.text_tower import TextFeatures
from regionlab.models.weights import WeightsError
from regionlab.util.files import hash_file
from regionlab.util.paths import DATA, expand

TOYBOX = DATA / "toybox"
TEXT = "composed_text"
COMBINERS = {"combiner": "composed_combiner", "fine_tuned_combiner": "composed_tuned_combiner"}


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

    Parameters
    ----------
    path
        The safetensors file; put in place only once it is whole.
    tuned, base
        Name in the model's state to tensor, after and before it was tuned.
    encoder
        That was tuned.
    image_length
        Mean length of its features of the training images.
    dtype
        "fp16" or "int8", see `compact.pack`.
    """
    _write(path, pack_changes(tuned, base, dtype), encoder, image_length=image_length)


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
    packed = pack(combiner.state_dict(), dtype)
    _write(path, packed, encoder, image_length=image_length, **about)


def _write(path: Path, packed: Mapping, encoder: Encoder, *, image_length: float, **about) -> None:
    metadata = {"clip": encoder.space, "model": encoder.fingerprint["model"],
                "image_length": repr(float(image_length)), **about}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_bytes(_sort_metadata(save(dict(packed), metadata=metadata)))
    path.with_suffix(".tmp").replace(path)


def _sort_metadata(file: bytes) -> bytes:
    """Order the metadata, which safetensors writes in any: equal weights make equal files."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


class TrainedParts:
    """The trained parts in a folder, loaded as they are asked for.

    Parameters
    ----------
    encoder
        That they must have been trained on.
    folder
        Where they lie; by default Toybox's.
    """

    def __init__(self, encoder: Encoder, folder: Path | str | None = None):
        self.encoder, self.folder = encoder, expand(folder or TOYBOX)

    def path(self, name: str) -> Path:
        """Return where a part lies: `TEXT`, or a composer's name in `COMBINERS`."""
        return self.folder / f"{COMBINERS.get(name, name)}.safetensors"

    def load_text(self) -> TextFeatures:
        """Load the tuned text encoder.

        Raises
        ------
        WeightsError
            If it is missing, damaged, or of another encoder.
        """
        packed, _ = self._read(TEXT)
        try:
            base = dict(self.encoder.model.named_parameters())
            return TextFeatures(self.encoder, apply_changes(packed, base))
        except ValueError as e:
            raise WeightsError(f"{self.path(TEXT)} does not fit: {e}") from e

    def load_combiner(self, name: str) -> Combiner:
        """Load a Combiner, "combiner" or "fine_tuned_combiner".

        Raises
        ------
        WeightsError
            If it is missing, damaged, of another encoder, or of another tuned text encoder.
        """
        tensors, about = self._read(name)
        try:
            with torch.device("meta"):  # draws no random numbers for weights that are not kept
                combiner = Combiner(CombinerSize(**json.loads(about["size"])))
            combiner.load_state_dict(unpack(tensors), assign=True)
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
        """Mean length of the encoder's features of the training images.

        Raises
        ------
        WeightsError
            If no part lies in the folder, or it is of another encoder.
        """
        name = next((n for n in (TEXT, *COMBINERS) if self.path(n).is_file()), TEXT)
        try:
            return float(self._read(name)[1]["image_length"])
        except WeightsError as e:
            raise WeightsError(f"image_length is not given, nor known from training: {e}") from e

    def _identify_texts(self, name: str) -> str:
        """Return the SHA-256 of the tuned text file that a Combiner goes with; "" for none."""
        if name != "fine_tuned_combiner":
            return ""
        if not self.path(TEXT).is_file():
            raise self._missing(self.path(TEXT))
        return hash_file(self.path(TEXT))

    def _read(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        path = self.path(name)
        if not path.is_file():
            raise self._missing(path)
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

    def _missing(self, path: Path) -> WeightsError:
        return WeightsError(
            f"there is no {path}: train it by `python -m regionlab.compose.composers "
            f"train`, or give the folder of what was trained on {self.encoder.name}"
        )
