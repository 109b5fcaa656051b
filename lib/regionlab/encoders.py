"""Encoders by name: toyclip, and every architecture and weights that open_clip knows."""

import difflib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from regionlab import torchvision_cpu  # noqa: F401 - makes open_clip importable on a CPU-only torch
from regionlab.checkpoints import CheckpointError, read_checkpoint, tell_misfit
from regionlab.devices import resolve_device, resolve_precision
from regionlab.embedding import FULL, Encoder
from regionlab.padding import pad_first
from regionlab.preprocessing import MARGIN
from regionlab.toybox import toyclip
from regionlab.weights import WeightsError, WeightsFile, find_weights

import open_clip  # isort: skip


def available_encoders() -> list[str]:
    """List the names that `load_encoder` knows: toyclip and all of open_clip's published ones."""
    return ["toyclip", *(f"{a}/{tag}" for a, tag in open_clip.list_pretrained())]


def load_encoder(
    name: str = "toyclip",
    *,
    device: str = "auto",
    precision: str = "auto",
    padding: str = "none",
    fast_decode: bool = True,
) -> Encoder:
    """Load an encoder by name.

    Parameters
    ----------
    name
        "toyclip"; or "<architecture>/<weights>" for any open_clip architecture, where weights
        is a published tag ("ViT-B-32/openai"), the path of a file, or "untrained" (random
        weights from seed 0, for timing). Weights by OpenAI, and others trained so, get
        QuickGELU. Of a file that is not a published one nobody knows: if it was trained so,
        name the architecture that says it, such as "ViT-B-32-quickgelu".
    device
        "auto" (GPU if there is one), or a torch device.
    precision
        "bf16" or "fp32"; "auto" is bf16 where the processor computes in it, else fp32.
    padding
        What is done to long pictures before the model cuts out the middle square: "none";
        "target", black bars until the sides are as 1.25 to 1 (S4); "square", until nothing is
        cut off. It is part of the fingerprint.

    Raises
    ------
    ValueError
        If the name, device, precision or padding is not known.
    WeightsError
        If the weights cannot be had, or do not fit.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    toyclip.register_toyclip()
    architecture, source = _parse_name(name)
    tokenizer = _create_tokenizer(architecture)
    weights = None if source == "untrained" else find_weights(architecture, source)
    model, preprocess, settings = _create_model(architecture, weights, precision, device)
    preprocess = pad_first(preprocess, padding)
    fingerprint = {
        "model": f"{architecture}/{Path(source).name}" if "/" in name else name,
        **_say_architecture(architecture, source, weights),
        **settings,
        "preprocess": " ".join(repr(preprocess).split()),
        "precision": precision,
        "decode": f"JPEG reduced to {MARGIN} times the size or more" if fast_decode else FULL,
    }
    try:
        return Encoder(name, model, preprocess, tokenizer, fingerprint, device)
    except FloatingPointError as e:
        raise WeightsError(f"the weights of {name} are damaged: {e}") from e


def _say_architecture(
    architecture: str, source: str, weights: WeightsFile | None
) -> dict[str, str]:
    """Return the architecture for the fingerprint, unless the weights are known to be of it.

    Others may fit several: heads and pooling leave no trace in a file, and "untrained" is none.
    The activation is told apart by itself.
    """
    published = open_clip.get_pretrained_cfg(architecture, source)
    if weights and (architecture == "toyclip" or published or weights.trusted):
        return {}
    return {"architecture": architecture.removesuffix("-quickgelu")}


def _parse_name(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: a tag, a file or "untrained"."""
    architecture, _, source = name.partition("/")
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"unknown encoder {name!r}{_suggest(name)}; known: toyclip, or "
            "<architecture>/<weights> such as ViT-B-32/openai, see available_encoders()"
        )
    if name == "toyclip":
        source = _toyclip_file()
    if not source:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        options = ", ".join([*tags, "a file", "untrained"])
        raise ValueError(f"{name!r} names no weights; say {architecture}/<one of: {options}>")
    return architecture, source


def _suggest(name: str) -> str:
    # OpenAI writes ViT-B/32, the hubs mix cases: compare without either.
    known = {a.lower(): a for a in open_clip.list_models()}
    wanted = name.lower().replace("/", "-")
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    return f" (did you mean {' or '.join(known[a] for a in close)}?)" if close else ""


def _toyclip_file() -> str:
    if not toyclip.WEIGHTS.exists():
        raise WeightsError(
            f"toyclip's weights are not at {toyclip.WEIGHTS}: restore the file or run `make train`"
        )
    return str(toyclip.WEIGHTS)


def _create_tokenizer(architecture: str):
    options = {"bpe_path": str(toyclip.VOCABULARY)} if architecture == "toyclip" else {}
    try:
        return open_clip.get_tokenizer(architecture, **options)
    except Exception as e:  # a missing package, or whatever the network does
        source = open_clip.get_model_config(architecture)["text_cfg"].get("hf_tokenizer_name")
        raise WeightsError(
            f"cannot load the tokenizer of {architecture}, {source}: {e}\n"
            f"It needs the package transformers, and once the network."
        ) from e


def _create_model(architecture: str, weights: WeightsFile | None, precision: str, device):
    """Return model, preprocessing, and the part of the fingerprint that they are made from."""
    known = weights.settings if weights else {}
    quick_gelu = bool(
        known.get("quick_gelu") or open_clip.get_model_config(architecture).get("quick_gelu")
    )

    def create(file: Path | None):
        # The seed is for random weights, and must not reach the caller's own numbers.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings(
                "ignore", "QuickGELU mismatch|'torch.load' received|.torch.jit.load"
            )
            torch.random.default_generator.manual_seed(0)
            return open_clip.create_model_and_transforms(
                architecture,
                pretrained=str(file) if file else None,
                precision=precision,
                device=device,
                force_quick_gelu=quick_gelu,
                image_mean=known.get("mean"),
                image_std=known.get("std"),
                image_interpolation=known.get("interpolation"),
                image_resize_mode=known.get("resize_mode"),
                weights_only=not (weights and weights.trusted),
            )

    try:
        model, _, preprocess = create(weights and weights.path)
    except Exception:  # open_clip, torch, safetensors and zip all have errors of their own
        if weights is None:
            raise
        model, _, preprocess = _create_unwrapped(create, architecture, weights)
    digest = weights.sha256 if weights else f"untrained: seed 0 of torch {torch.__version__}"
    model = model.eval().to(memory_format=torch.channels_last)  # convolutions like it, by far
    return model, preprocess, {"weights_sha256": digest, "quick_gelu": quick_gelu}


def _create_unwrapped(create: Callable, architecture: str, weights: WeightsFile) -> tuple:
    """Create a model from weights that open_clip does not read as they are, or say why not."""
    try:
        state = read_checkpoint(weights.path)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "weights.pt")
            return create(Path(folder) / "weights.pt")
    except CheckpointError as e:
        reason, cause = str(e), e
    except Exception as e:  # as above
        reason, cause = tell_misfit(e), e
        if "loading state_dict" in str(e):
            reason = f"it is incomplete or of another architecture: {reason}"
    raise WeightsError(
        f"{weights.path} (SHA-256 {weights.sha256}) cannot be loaded as {architecture}: {reason}"
    ) from cause
