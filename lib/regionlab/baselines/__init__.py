"""The papers' baselines by name: ViT + kNN, Deep Image Retrieval and SegNet as image encoders."""

import difflib
from collections.abc import Callable

import torch

from regionlab import torchvision_cpu  # noqa: F401 - makes timm importable on a CPU-only torch
from regionlab.baselines.files import find_own_file, find_timm_weights, find_toybox_file
from regionlab.baselines.models import ImageEncoder, ImageModel
from regionlab.baselines.retrieval import create_dir, create_toydir, learn_whitening
from regionlab.baselines.segnet import create_segnet, create_toysegnet
from regionlab.baselines.vit import create_toyvit, create_vit
from regionlab.devices import resolve_device, resolve_precision
from regionlab.sam_weights import misfit, read_sam_weights
from regionlab.weights import WeightsError, WeightsFile

import timm  # isort: skip

__all__ = ["ImageEncoder", "available_baselines", "learn_whitening", "load_baseline"]

TOYBOX = ("toyvit", "toydir", "toysegnet")
ALONE: dict[str, Callable[[], ImageModel]] = {
    "toyvit": create_toyvit,
    "toydir": create_toydir,
    "toysegnet": create_toysegnet,
    "segnet": create_segnet,
}
# Their module in timm, and what builds one of its models
FAMILIES: dict[str, tuple[str, Callable[[str], ImageModel]]] = {
    "vit": ("vision_transformer", create_vit),
    "dir": ("resnet", create_dir),
}


def available_baselines() -> list[str]:
    """List the names that `load_baseline` knows without a file: Toybox's, and timm's published."""
    names = (
        f"{family}/{name}"
        for family, (module, _) in FAMILIES.items()
        for name in timm.list_models(module=module, pretrained=True)
    )
    return [*TOYBOX, *names]


def load_baseline(
    name: str = "toyvit", *, device: str = "auto", precision: str = "auto"
) -> ImageEncoder:
    """Load a baseline by name, with the face of an `Encoder` for images.

    Parameters
    ----------
    name
        "toyvit", "toydir" or "toysegnet", trained on Toybox; "vit/<timm name>" for a Vision
        Transformer or "dir/<timm name>" for Deep Image Retrieval on a ResNet, such as
        "vit/vit_base_patch16_224" or "dir/resnet50", with the weights that timm publishes, and
        with a tag ("vit/vit_base_patch16_224.dino") for others of them. Each may be followed by
        "/<file>", a state dict of your own: timm's, torchvision's, or one that training here
        wrote. "segnet/<file>" is SegNet in the sizes of its paper; none is published to load by
        name. "/untrained" gives random weights from seed 0, for timing.
        Published weights give Deep Image Retrieval without whitening, see `learn_whitening`.
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
    architecture, source = _parse_name(name)
    model, digest = _create_model(architecture, source)
    fingerprint = {
        "model": f"{architecture}/{source.rpartition('/')[2]}" if source else name,
        **({"architecture": architecture} if source and architecture not in ALONE else {}),
        "weights_sha256": digest,
        "quick_gelu": "quickgelu" in architecture,
        "preprocess": " ".join(repr(model.preprocess).split()),
        "precision": precision,
    }
    try:
        return ImageEncoder(name, model.eval().to(device), fingerprint, device)
    except FloatingPointError as e:
        raise WeightsError(f"the weights of {name} are damaged: {e}") from e


def _parse_name(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: "", a file or "untrained"."""
    family, _, rest = name.partition("/")
    if family in ALONE:
        return family, rest
    if family not in FAMILIES:
        raise ValueError(
            f"unknown baseline {name!r}{_suggest(family, [*ALONE, *FAMILIES])}; known: "
            f"{', '.join(TOYBOX)}, vit/<timm name>, dir/<timm name>, segnet/<file>"
        )
    model, _, source = rest.partition("/")
    _check_timm_name(name, model, FAMILIES[family][0])
    return f"{family}/{model}", source


def _check_timm_name(name: str, model: str, module: str) -> None:
    known = timm.list_models(module=module)
    architecture, tag = timm.models.split_model_name_tag(model)
    if architecture not in known:
        raise ValueError(
            f"unknown model {model!r} in {name!r}{_suggest(model, known)}; what stands here is "
            f"a name from timm's {module}, see available_baselines()"
        )
    published = timm.list_models(f"{architecture}.*", module=module, pretrained=True)
    if tag and model not in published:
        raise ValueError(
            f"timm has no weights {tag!r} of {architecture}; known: {', '.join(published)}"
        )


def _suggest(wanted: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _create_model(architecture: str, source: str) -> tuple[ImageModel, str]:
    """Return the model, and the SHA-256 of its weights."""
    if source == "untrained":
        return _build(
            architecture
        ), f"untrained {architecture}: seed 0 of torch {torch.__version__}"
    weights = _find_weights(architecture, source)
    state = read_sam_weights(weights)
    model = _build(architecture)
    try:
        model.load_weights(state)
    except (RuntimeError, KeyError, ValueError) as e:  # of torch, and of timm's conversions
        raise misfit(weights, architecture, e) from e
    return model, weights.sha256


def _build(architecture: str) -> ImageModel:
    family, _, name = architecture.partition("/")
    # The seed is for untrained weights, and must not reach the caller's own numbers.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = FAMILIES[family][1](name) if name else ALONE[architecture]()
    return model.to(memory_format=torch.channels_last)  # convolutions like it, by far


def _find_weights(architecture: str, source: str) -> WeightsFile:
    if source:
        return find_own_file(architecture, source)
    if architecture in TOYBOX:
        return find_toybox_file(architecture)
    if architecture == "segnet":
        raise ValueError("'segnet' names no weights: say segnet/<a file> or segnet/untrained")
    return find_timm_weights(architecture.partition("/")[2])
