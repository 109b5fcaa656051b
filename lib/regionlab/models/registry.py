"""Models by name: `load_encoder`, `load_segmenter`, `load_baseline`, and where their weights lie.

A model with weights of its own is a row of `MODELS`. Its module, in this folder, has
`create(architecture)`, which returns the network with random weights, and, for a segmenter,
`wrap(name, network, fingerprint, **options)`, which returns the `Segmenter`. All else that
`load_encoder` and `load_baseline` know is what open_clip and timm publish.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionlab.data.masks import MIN_COMPONENT_SHARE
from regionlab.models import weights as files
from regionlab.models.weights import Published, WeightsError, WeightsFile
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    import torch

    from regionlab.models.baselines import ImageEncoder
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Segmenter

SAM = "https://dl.fbaipublicfiles.com/segment_anything"
UNTRAINED = "untrained"  # in place of weights: random ones, for timing
PRECISIONS = ("auto", "fp32", "bf16")
FAMILIES = ("vit", "dir")  # of baselines, on networks of timm


@dataclass(frozen=True)
class Model:
    """A model of a name of its own: what it is, its module, and its weights if not Toybox's."""

    kind: str
    module: str
    weights: Published | None = None
    is_toy: bool = False


def _sam(name: str, stem: str, sha256: str) -> Model:
    """Return one of SAM's official models; the six digits in `stem` are of the file's MD5."""
    url = f"{SAM}/{stem}.pth"
    return Model("segmenter", "sam", Published(name, stem, (".pth",), url, sha256=sha256))


MODELS = {
    "toyclip": Model("encoder", "clip", is_toy=True),
    "toysam": Model("segmenter", "sam", is_toy=True),
    "vit_b": _sam(
        "vit_b",
        "sam_vit_b_01ec64",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": _sam(
        "vit_l",
        "sam_vit_l_0b3195",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": _sam(
        "vit_h",
        "sam_vit_h_4b8939",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "toyvit": Model("baseline", "baselines", is_toy=True),
    "toydir": Model("baseline", "baselines", is_toy=True),
    "toysegnet": Model("baseline", "baselines", is_toy=True),
    "segnet": Model("baseline", "baselines"),
}


def load_encoder(
    name: str = "toyclip",
    *,
    device: str = "auto",
    precision: str = "auto",
    padding: str = "none",
    fast_decode: bool = True,
) -> "Encoder":
    """Load an encoder by name.

    Parameters
    ----------
    name : "toyclip"; or "<architecture>/<weights>" for any open_clip architecture, where weights is
        a published tag ("ViT-B-32/openai"), the path of a file, or "untrained" (random weights from
        seed 0, for timing). Weights by OpenAI, and others trained so, get QuickGELU. Nothing in a
        file of your own says so: if it was trained with QuickGELU, name the architecture that has
        it, such as "ViT-B-32-quickgelu".
    device : "auto" (GPU if there is one), or a torch device.
    precision : "bf16" or "fp32"; "auto" is bf16 where the processor computes in it, else fp32.
    padding : What is done to long images before the model cuts out the middle square: "none";
        "target", black bars until the sides are as 1.25 to 1 (S4); "square", until nothing is cut
        off. It is part of the fingerprint.
    fast_decode : Decode large JPEGs at reduced scale.

    Raises
    ------
    InputError : If the name, device, precision or padding is not known.
    WeightsError : If the weights cannot be had, or do not fit.
    """
    from regionlab.models import clip
    from regionlab.models.encoder import FULL, Encoder
    from regionlab.models.pipeline import MARGIN, pad_first

    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    clip.register_toyclip()
    architecture, source = _parse_encoder(name)
    tokenizer = clip.create_tokenizer(architecture)
    weights = None if source == UNTRAINED else clip.find_weights(architecture, source)
    model, preprocess, settings = clip.create_clip(architecture, weights, precision, device)
    preprocess = pad_first(preprocess, padding)
    fingerprint = {
        "model": f"{architecture}/{Path(source).name}" if "/" in name else name,
        **_architecture_entry(architecture, source, weights),
        **settings,
        "preprocess": " ".join(repr(preprocess).split()),
        "precision": precision,
        "decode": f"JPEG reduced to {MARGIN} times the size or more" if fast_decode else FULL,
    }
    return _unless_damaged(
        name, lambda: Encoder(name, model, preprocess, tokenizer, fingerprint, device)
    )


def load_segmenter(
    name: str = "toysam",
    *,
    device: str = "auto",
    precision: str = "auto",
    cache_size: int = 8,
    islands: float = MIN_COMPONENT_SHARE,
) -> "Segmenter":
    """Load a segmenter by name.

    Parameters
    ----------
    name : "toysam"; "vit_b", "vit_l" or "vit_h" for SAM's official checkpoints; "<name>/<file>" for
        weights of your own; "<name>/untrained" for random weights from seed 0, for timing.
    device : "auto" (GPU if there is one), or a torch device.
    precision : Of the image encoder: "bf16" or "fp32"; "auto" is bf16 where the processor computes
        in it, else fp32.
    cache_size : How many images are remembered.
    islands : Parts of an answer that hold less than this share of it go; 0 keeps SAM's answer.

    Raises
    ------
    InputError
        If the name, device or precision is not known; ValueError if `cache_size` is below 1.
    WeightsError : If the weights cannot be had, or do not fit.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    architecture, _, source = name.partition("/")
    _check_known("segmenter", name, architecture, available_segmenters())
    module = import_module(f"regionlab.models.{MODELS[architecture].module}")
    if source == UNTRAINED:
        network, sha256 = _create_untrained(module.create, architecture)
    else:
        import torch

        found = _find_weights(architecture, source)
        state, sha256 = files.read_weights(found), found.sha256
        with torch.device("meta"):  # no time and no memory for numbers that are replaced at once
            network = module.create(architecture)
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as e:
            raise files.misfit(found, architecture, e) from e
    fingerprint = {
        "model": _short_name(architecture, source),
        "weights_sha256": sha256,
        "precision": precision,
    }
    options = {"cache_size": cache_size, "islands": islands}
    return module.wrap(name, network.to(device), fingerprint, **options)


def load_baseline(
    name: str = "toyvit", *, device: str = "auto", precision: str = "auto"
) -> "ImageEncoder":
    """Load a baseline by name, with the face of an `Encoder` for images.

    Parameters
    ----------
    name : "toyvit", "toydir" or "toysegnet", trained on Toybox; "vit/<timm name>" for a Vision
        Transformer or "dir/<timm name>" for Deep Image Retrieval on a ResNet, such as
        "vit/vit_base_patch16_224" or "dir/resnet50", with the weights that timm publishes, and with
        a tag ("vit/vit_base_patch16_224.dino") for others of them. Each may be followed by
        "/<file>", a state dict of your own: timm's, torchvision's, or one that training here wrote.
        "segnet/<file>" is SegNet in the sizes of its paper; none is published to load by name.
        "/untrained" gives random weights from seed 0, for timing. Published weights give Deep Image
        Retrieval without whitening, see `learn_whitening`.
    device : "auto" (GPU if there is one), or a torch device.
    precision : "bf16" or "fp32"; "auto" is bf16 where the processor computes in it, else fp32.

    Raises
    ------
    InputError : If the name, device or precision is not known.
    WeightsError : If the weights cannot be had, or do not fit.
    """
    from regionlab.models import baselines

    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    architecture, source = _parse_baseline(name)
    if source == UNTRAINED:
        model, sha256 = _create_untrained(baselines.create, architecture)
        sha256 = sha256.replace(UNTRAINED, f"{UNTRAINED} {architecture}")
    else:
        found = _find_weights(architecture, source)
        state, sha256 = files.read_weights(found), found.sha256
        model, _ = _create_untrained(baselines.create, architecture)
        try:
            model.load_weights(state)
        except (RuntimeError, KeyError, ValueError) as e:  # of torch, and of timm's conversions
            raise files.misfit(found, architecture, e) from e
    fingerprint = {
        "model": _short_name(architecture, source),
        **({"architecture": architecture} if source and "/" in architecture else {}),
        "weights_sha256": sha256,
        "quick_gelu": "quickgelu" in architecture,
        "preprocess": " ".join(repr(model.preprocess).split()),
        "precision": precision,
    }
    model = model.eval().to(device)
    return _unless_damaged(name, lambda: baselines.ImageEncoder(name, model, fingerprint, device))


# Names


def available_encoders() -> list[str]:
    """List the names that `load_encoder` knows: toyclip and all of open_clip's published ones."""
    from regionlab.models import clip

    return [*_names("encoder"), *clip.list_published()]


def available_segmenters() -> list[str]:
    """List the names that `load_segmenter` knows."""
    return _names("segmenter")


def available_baselines() -> list[str]:
    """List the names that `load_baseline` knows without a file: Toybox's, and timm's published."""
    from regionlab.models import baselines

    toys = [name for name in _names("baseline") if MODELS[name].is_toy]
    return [*toys, *baselines.list_published()]


def list_models() -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and file of weights of all that is loaded by name."""
    kinds = {
        "encoder": available_encoders(),
        "segmenter": available_segmenters(),
        "baseline": available_baselines(),
    }
    for kind, names in kinds.items():
        for name in names:
            with suppress(WeightsError):  # timm names some that nobody publishes weights of
                yield kind, name, place_of_weights(name)


def place_of_weights(name: str) -> Path:
    """Return where the weights of a model lie, or will once they are fetched.

    `name` is one of `available_encoders()` and the others.
    """
    if name in MODELS and MODELS[name].is_toy:
        return files.TOYBOX / f"{name}.safetensors"
    return _find_published(name).place()


def _names(kind: str) -> list[str]:
    return [name for name, model in MODELS.items() if model.kind == kind]


def _short_name(architecture: str, source: str) -> str:
    """Return a model's name without the folders of its file."""
    return f"{architecture}/{source.rpartition('/')[2]}" if source else architecture


def _check_known(
    kind: str, name: str, wanted: str, known: list[str], hint: str = "", cutoff: float = 0.5
) -> None:
    """Raise InputError, with what may be meant, for a name that is not among those known."""
    if wanted not in known:
        hint = hint or f"{', '.join(known)}, each alone, or with /<file> or /untrained"
        raise InputError(f"unknown {kind} {name!r}{_suggest(wanted, known, cutoff)}; known: {hint}")


def _suggest(wanted: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return in words which known names are near; cases, "-", "_" and "/" are much the same."""

    def fold(name: str) -> str:
        return name.lower().replace("/", "-").replace("_", "-")

    folded = {fold(name): name for name in known}
    close = difflib.get_close_matches(fold(wanted), folded, n=3, cutoff=cutoff)
    return f" (did you mean {' or '.join(folded[name] for name in close)}?)" if close else ""


def _parse_encoder(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: a tag, a file, "untrained", "" for toyclip's."""
    from regionlab.models.clip import open_clip

    architecture, _, source = name.partition("/")
    if architecture not in open_clip.list_models():
        raise InputError(
            f"unknown encoder {name!r}{_suggest(name, open_clip.list_models(), 0.4)}; known: "
            "toyclip, or <architecture>/<weights> such as ViT-B-32/openai, see "
            "available_encoders()"
        )
    if not source and name != "toyclip":
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        options = ", ".join([*tags, "a file", UNTRAINED])
        raise InputError(f"{name!r} names no weights; say {architecture}/<one of: {options}>")
    return architecture, source


def _parse_baseline(name: str) -> tuple[str, str]:
    """Split a name into architecture and weights: "", a file or "untrained"."""
    from regionlab.models import baselines

    family, _, source = name.partition("/")
    toys = ", ".join(n for n in _names("baseline") if MODELS[n].is_toy)
    hint = f"{toys}, vit/<timm name>, dir/<timm name>, segnet/<file>"
    _check_known("baseline", name, family, [*_names("baseline"), *FAMILIES], hint)
    if family not in FAMILIES:
        return family, source
    model, _, source = source.partition("/")
    architecture, _, tag = model.partition(".")
    known = baselines.list_architectures(family)
    if architecture not in known:
        raise InputError(
            f"unknown model {model!r} in {name!r}{_suggest(model, known)}; what stands here is a "
            f"name from timm's {baselines.FAMILIES[family][0]}, see available_baselines()"
        )
    published = baselines.list_tags(architecture, family)
    if tag and model not in published:
        raise InputError(
            f"timm has no weights {tag!r} of {architecture}; known: {', '.join(published)}"
        )
    return f"{family}/{model}", source


# Weights


def _find_published(name: str) -> Published:
    """Return where the weights of a name are published."""
    family, _, rest = name.partition("/")
    if family in FAMILIES:
        from regionlab.models import baselines

        return baselines.find_published(rest)
    if not rest:
        if MODELS[name].weights is None:
            raise InputError(f"'{name}' names no weights: say {name}/<a file> or {name}/untrained")
        return MODELS[name].weights
    from regionlab.models import clip

    return clip.find_published(family, rest)


def _find_weights(architecture: str, source: str) -> WeightsFile:
    """Return the weights of a segmenter or baseline: a file of one's own, Toybox's, published."""
    if source:
        return files.find_own_file(architecture, source)
    if architecture in MODELS and MODELS[architecture].is_toy:
        return files.find_toybox_file(architecture)
    return _find_published(architecture).find()


def _create_untrained(create: Callable, architecture: str) -> tuple[Any, str]:
    """Return a network with random weights of seed 0, and what stands for their SHA-256."""
    import torch

    # The seed is for these weights, and must not reach the caller's own numbers.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return create(architecture), f"{UNTRAINED}: seed 0 of torch {torch.__version__}"


def _architecture_entry(
    architecture: str, source: str, weights: WeightsFile | None
) -> dict[str, str]:
    """Return the architecture for the fingerprint, unless the weights are known to be of it.

    Others may fit several: heads and pooling leave no trace in a file, and "untrained" is none.
    The activation is told apart by itself.
    """
    from regionlab.models import clip

    published = clip.find_published(architecture, source)
    if weights and (architecture == "toyclip" or published or weights.trusted):
        return {}
    return {"architecture": architecture.removesuffix("-quickgelu")}


def _unless_damaged(name: str, create: Callable[[], "Encoder"]) -> Any:
    """Return an encoder, which tries its model once; WeightsError if that gives no vector."""
    try:
        return create()
    except FloatingPointError as e:
        raise WeightsError(f"the weights of {name} are damaged: {e}") from e


# Processors


def resolve_device(device: str = "auto") -> "torch.device":
    """Return the torch device for a name; "auto" is the GPU if there is one.

    Raises
    ------
    InputError : If torch knows no such device, or this machine has none.
    """
    import torch

    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError) as e:  # AssertionError: a torch built without CUDA
        reason = str(e).splitlines()[0]
        raise InputError(
            f"cannot use device {device!r} ({reason}); known: auto, cpu, cuda, cuda:1, mps"
        ) from e
    return resolved


def resolve_precision(precision: str, device: "torch.device") -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 where the processor computes in it.

    Raises
    ------
    InputError : If the precision is not known.
    """
    import torch

    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if device.type == "cpu" and fast else "fp32"
