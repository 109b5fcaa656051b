"""The papers' baselines by name: ViT + kNN, Deep Image Retrieval and SegNet as image encoders."""

import difflib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from regionlab.models import torchvision_cpu  # noqa: F401 - makes open_clip importable on a CPU-only torch
from regionlab.models import toy as toyclip
from regionlab.models.checkpoints import CheckpointError, read_checkpoint, tell_misfit
from regionlab.models.devices import resolve_device, resolve_precision
from regionlab.models.encoder import FULL, Encoder
from regionlab.models.pipeline import MARGIN, pad_first
from regionlab.models.weights import WeightsError, WeightsFile, find_weights

import open_clip  # isort: skip
from regionlab.data.masks import MIN_COMPONENT_SHARE
from regionlab.models.baselines import (
    ImageEncoder,
    ImageModel,
    create_dir,
    create_toydir,
    create_toyvit,
    create_vit,
    learn_whitening,
)
from regionlab.models.sam import ARCHITECTURES, EVERYTHING, Sam, SamSegmenter, bound_memory
from regionlab.models.segmenter import Segmenter
from regionlab.models.segnet import create_segnet, create_toysegnet
from regionlab.models.weights import (
    find_own_file,
    find_sam_weights,
    find_timm_weights,
    find_toybox_file,
    misfit,
    read_sam_weights,
)

import timm  # isort: skip


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


def available_segmenters() -> list[str]:
    """List the names that `load_segmenter` knows."""
    return list(ARCHITECTURES)


def load_segmenter(
    name: str = "toysam",
    *,
    device: str = "auto",
    precision: str = "auto",
    cache_size: int = 8,
    islands: float = MIN_COMPONENT_SHARE,
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
    architecture, source = _parse_name_segmenters(name)
    sam, digest = _create_model_segmenters(architecture, source)
    fingerprint = {
        "model": f"{architecture}/{source.rpartition('/')[2]}" if source else name,
        "weights_sha256": digest,
        "precision": precision,
    }
    return SamSegmenter(
        name,
        bound_memory(sam).to(device),
        fingerprint,
        everything=EVERYTHING.get(architecture),
        cache_size=cache_size,
        islands=islands,
    )


def _parse_name_segmenters(name: str) -> tuple[str, str]:
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


def _create_model_segmenters(architecture: str, source: str) -> tuple[Sam, str]:
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
    architecture, source = _parse_name_baselines(name)
    model, digest = _create_model_baselines(architecture, source)
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


def _parse_name_baselines(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: "", a file or "untrained"."""
    family, _, rest = name.partition("/")
    if family in ALONE:
        return family, rest
    if family not in FAMILIES:
        raise ValueError(
            f"unknown baseline {name!r}{_suggest_baselines(family, [*ALONE, *FAMILIES])}; known: "
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
            f"unknown model {model!r} in {name!r}{_suggest_baselines(model, known)}; what stands "
            f"here is a name from timm's {module}, see available_baselines()"
        )
    published = timm.list_models(f"{architecture}.*", module=module, pretrained=True)
    if tag and model not in published:
        raise ValueError(
            f"timm has no weights {tag!r} of {architecture}; known: {', '.join(published)}"
        )


def _suggest_baselines(wanted: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _create_model_baselines(architecture: str, source: str) -> tuple[ImageModel, str]:
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
