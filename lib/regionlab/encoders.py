"""Encoders by name: toyclip, and every architecture and weights that open_clip knows."""

import warnings

import torch

from regionlab import torchvision_cpu  # noqa: F401 - makes open_clip importable on a CPU-only torch
from regionlab.devices import resolve_device, resolve_precision
from regionlab.embedding import Encoder
from regionlab.toybox.toyclip import VOCABULARY, WEIGHTS, register_toyclip
from regionlab.weights import WeightsError, WeightsFile, find_weights, hash_file

import open_clip  # isort: skip


def available_encoders() -> list[str]:
    """List the names that `load_encoder` knows: toyclip and all of open_clip's published ones."""
    return ["toyclip", *(f"{a}/{tag}" for a, tag in open_clip.list_pretrained())]


def load_encoder(
    name: str = "toyclip", *, device: str = "auto", precision: str = "auto"
) -> Encoder:
    """Load an encoder by name.

    Parameters
    ----------
    name
        "toyclip"; or "<architecture>/<weights>" for any open_clip architecture, where weights
        is a published tag ("ViT-B-32/openai"), the path of a file, or "untrained" (random
        weights from seed 0, for timing). Weights by OpenAI, and others trained so, get QuickGELU.
    device
        "auto" (GPU if there is one), or a torch device.
    precision
        "bf16" or "fp32"; "auto" is bf16 where the processor computes in it, else fp32.

    Raises
    ------
    ValueError
        If the name, device or precision is not known.
    WeightsError
        If the weights cannot be had, or do not fit.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    if name == "toyclip":
        architecture, weights = "toyclip", _toyclip_weights()
        register_toyclip()
    else:
        architecture, weights = _parse_name(name)
    model, preprocess = _create_model(architecture, weights, precision, device)
    options = {"bpe_path": str(VOCABULARY)} if architecture == "toyclip" else {}
    tokenizer = open_clip.get_tokenizer(architecture, **options)
    return Encoder(name, model, preprocess, tokenizer, weights, precision, device)


def _parse_name(name: str) -> tuple[str, WeightsFile | None]:
    """Split "<architecture>/<weights>"; None stands for untrained."""
    architecture, _, source = name.partition("/")
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"unknown encoder {name!r}; known: toyclip, or <architecture>/<weights> such as "
            f"ViT-B-32/openai, with one of {len(open_clip.list_models())} open_clip architectures: "
            f"{', '.join(open_clip.list_models())}"
        )
    if not source:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise ValueError(
            f"{name!r} names no weights; say {architecture}/<one of: {tags}, a file, untrained>"
        )
    return architecture, None if source == "untrained" else find_weights(architecture, source)


def _toyclip_weights() -> WeightsFile:
    if not WEIGHTS.exists():
        raise WeightsError(
            f"toyclip's weights are not at {WEIGHTS}: restore the file or run `make train`"
        )
    return WeightsFile(WEIGHTS, hash_file(WEIGHTS))


def _create_model(architecture: str, weights: WeightsFile | None, precision: str, device):
    published = weights.published if weights else {}
    torch.manual_seed(0) if weights is None else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "QuickGELU mismatch")
            model, _, preprocess = open_clip.create_model_and_transforms(
                architecture,
                pretrained=str(weights.path) if weights else None,
                precision=precision,
                device=device,
                force_quick_gelu=bool(published.get("quick_gelu")),
                image_mean=published.get("mean"),
                image_std=published.get("std"),
                image_interpolation=published.get("interpolation"),
                image_resize_mode=published.get("resize_mode"),
            )
    except Exception as e:  # open_clip, torch, safetensors and zip all have errors of their own
        if weights is None:
            raise
        raise WeightsError(
            f"{weights.path} (SHA-256 {weights.sha256}) cannot be loaded as {architecture}: "
            f"it may be cut short, or of another architecture. {e}"
        ) from e
    return model.eval(), preprocess
