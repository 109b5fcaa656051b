"""Segmenters by name: toysam, and SAM's official models."""

import difflib
from collections.abc import Callable

import torch

from regionlab.bounded_sam import bound_memory
from regionlab.devices import resolve_device, resolve_precision
from regionlab.everything import Everything
from regionlab.islands import ISLAND_SHARE
from regionlab.masking import Segmenter
from regionlab.sam_weights import find_sam_weights, misfit, read_sam_weights
from regionlab.toybox.toysam import create_toysam

from segment_anything import sam_model_registry  # isort: skip
from segment_anything.modeling import Sam  # isort: skip

ARCHITECTURES: dict[str, Callable[[], Sam]] = {
    "toysam": create_toysam,
    **{name: sam_model_registry[name] for name in ("vit_b", "vit_l", "vit_h")},
}
# Toybox's scenes hold a few large things; a finer grid finds the same ones again.
# toysam's masks have 64 x 64 logits, whose edges are softer than SAM's. On 60 scenes of Toybox val
# these leave a mask of IoU 0.5 or more for 99 % of the objects, SAM's own thresholds for 1 %.
EVERYTHING = {
    "toysam": Everything(points_per_side=8, pred_iou_thresh=0.5, stability_score_thresh=0.5)
}


def load_segmenter(
    name: str = "toysam",
    *,
    device: str = "auto",
    precision: str = "auto",
    cache_size: int = 8,
    islands: float = ISLAND_SHARE,
) -> Segmenter:
    """Load a segmenter by name.

    Parameters
    ----------
    name
        "toysam"; "vit_b", "vit_l" or "vit_h" for SAM's official checkpoints;
        "<name>/<file>" for weights of your own; "<name>/untrained" for random weights from
        seed 0, for timing.
    device
        "auto" (GPU if there is one), or a torch device.
    precision
        Of the image encoder: "bf16" or "fp32"; "auto" is bf16 where the processor computes
        in it, else fp32.
    cache_size
        How many images are remembered.
    islands
        Parts of an answer that hold less than this share of it go; 0 keeps SAM's answer.

    Raises
    ------
    ValueError
        If the name, device or precision is not known, or `cache_size` is below 1.
    WeightsError
        If the weights cannot be had, or do not fit.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    architecture, source = _parse_name(name)
    sam, digest = _create_model(architecture, source)
    fingerprint = {
        "model": f"{architecture}/{source.rpartition('/')[2]}" if source else name,
        "weights_sha256": digest,
        "precision": precision,
    }
    return Segmenter(
        name,
        bound_memory(sam).to(device),
        fingerprint,
        everything=EVERYTHING.get(architecture),
        cache_size=cache_size,
        islands=islands,
    )


def _parse_name(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: "", a file or "untrained"."""
    architecture, _, source = name.partition("/")
    if architecture not in ARCHITECTURES:
        wanted = architecture.lower().replace("-", "_")
        close = difflib.get_close_matches(wanted, ARCHITECTURES, n=3, cutoff=0.5)
        suggestion = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(
            f"unknown segmenter {name!r}{suggestion}; known: {', '.join(ARCHITECTURES)}, "
            "each alone, or with /<file> or /untrained"
        )
    return architecture, source


def _create_model(architecture: str, source: str) -> tuple[Sam, str]:
    """Return the model, and the SHA-256 of its weights."""
    if source == "untrained":
        return _create_untrained(architecture), f"untrained: seed 0 of torch {torch.__version__}"
    weights = find_sam_weights(architecture, source)
    state = read_sam_weights(weights)
    with torch.device("meta"):  # no time and no memory for numbers that are replaced at once
        sam = ARCHITECTURES[architecture]()
    try:
        sam.load_state_dict(state, assign=True)
    except RuntimeError as e:
        raise misfit(weights, architecture, e) from e
    return sam, weights.sha256


def _create_untrained(architecture: str) -> Sam:
    # The seed is for these weights, and must not reach the caller's own numbers.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return ARCHITECTURES[architecture]()
