"""CLIP through open_clip: how its models are made, toyclip among them, and their text tower."""

import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from regionlab.models.torchvision_cpu import add_timm, import_open_clip

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from regionlab.models.weights import (
    CheckpointError,
    Published,
    WeightsError,
    WeightsFile,
    damaged,
    find_own_file,
    find_toybox_file,
    read_checkpoint,
    tell_misfit,
)

open_clip = import_open_clip()

HERE = Path(__file__).parent
CONFIG = HERE / "toyclip.json"
VOCABULARY = HERE / "toyclip_bpe.txt.gz"  # the first merges of CLIP's own: 8,192 tokens
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
IMAGE_PREFIX = "visual."


def register_toyclip() -> None:
    """Make "toyclip" a model name that open_clip's factory knows."""
    if "toyclip" not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)


def create_toyclip(pretrained: str | Path | None = None):
    """Return toyclip's (model, preprocess, tokenizer), of random weights or those in a file."""
    register_toyclip()
    model, _, preprocess = open_clip.create_model_and_transforms(
        "toyclip", pretrained=str(pretrained) if pretrained else None
    )
    return model, preprocess, create_tokenizer("toyclip")


def create_tokenizer(architecture: str):
    """Return an architecture's tokenizer; WeightsError if it cannot be had."""
    options = {"bpe_path": str(VOCABULARY)} if architecture == "toyclip" else {}
    try:
        return open_clip.get_tokenizer(architecture, **options)
    except Exception as e:  # a missing package, or whatever the network does
        source = open_clip.get_model_config(architecture)["text_cfg"].get("hf_tokenizer_name")
        raise WeightsError(
            f"cannot load the tokenizer of {architecture}, {source}: {e}\n"
            f"It needs the package transformers, and once the network."
        ) from e


# Weights


def list_published() -> list[str]:
    """List what open_clip publishes, as "<architecture>/<tag>"."""
    return [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]


def find_published(architecture: str, tag: str) -> Published | None:
    """Return what open_clip publishes for an architecture under a tag; None if it is unknown."""
    entry = open_clip.get_pretrained_cfg(architecture, tag)
    if not entry:
        return None
    hub, _, file = entry.get("hf_hub", "").rpartition("/")
    # As open_clip reads an entry: without a name it is one of two.
    files = (str(Path(file).with_suffix(".safetensors")), file) if file else (
        "open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # fmt: skip
    return Published(
        f"{architecture}/{tag}",
        f"{architecture}-{tag}",
        url=entry.get("url", ""),
        hub=hub,
        files=tuple(dict.fromkeys(files)),
        sha256=_published_digest(entry),
    )


def find_weights(architecture: str, source: str, *, folder: Path | None = None) -> WeightsFile:
    """Return the weights that `source` names: a published tag such as "openai", or a file.

    `folder` is where published weights are looked for, and downloaded to; by default
    `data/weights/`. Of a file that is published under a tag, the tag's settings are known, of
    another one the preprocessing that all published weights of the architecture share.

    Raises
    ------
    WeightsError
        If the tag or file is unknown, the download fails, or the file is not the published one.
    """
    if architecture == "toyclip" and not source:
        return find_toybox_file("toyclip")
    if published := find_published(architecture, source):
        entry = open_clip.get_pretrained_cfg(architecture, source)
        return _describe(published.find(folder), [entry], entry)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    entries = [open_clip.get_pretrained_cfg(architecture, tag) for tag in tags]
    kinds = [{key: entry[key] for key in PREPROCESSING if key in entry} for entry in entries]
    shared = kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else {}
    return _describe(find_own_file(architecture, source, tags=tags), entries, shared)


def _describe(file: WeightsFile, entries: list[dict], settings: dict) -> WeightsFile:
    """Return a file with the settings of the entry whose sum it has, else those given."""
    same = [entry for entry in entries if file.sha256 == _published_digest(entry)]
    return replace(file, settings=same[0] if same else settings, trusted=bool(same))


def _published_digest(entry: dict) -> str:
    """Return the SHA-256, or its first 8 digits, that some published addresses hold; else ""."""
    found = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pt$", entry.get("url", ""))
    return (found[1] or found[2]) if found else ""


def create_clip(architecture: str, weights: WeightsFile | None, precision: str, device):
    """Return model, preprocessing, and the part of the fingerprint that they are made from."""
    known = weights.settings if weights else {}
    config = open_clip.get_model_config(architecture)
    quick_gelu = bool(known.get("quick_gelu") or config.get("quick_gelu"))
    if "timm_model_name" in config["vision_cfg"]:
        add_timm()

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
    raise damaged(weights, reason, architecture) from cause


# The text tower by itself


def encode_tokens(model, tokens: torch.Tensor) -> torch.Tensor:
    """Encode texts as `model.encode_text` does, but only as far as the longest of them reaches.

    Under the causal mask what follows the end token changes nothing, so it need not be computed.
    A text tower of another build than CLIP's own is asked as it is.

    Parameters
    ----------
    tokens : (n, context) int64, zero-padded.

    Returns
    -------
    torch.Tensor
        (n, d), not normalised.
    """
    if not _is_plain(model):
        return model.encode_text(tokens)
    length = int(tokens.argmax(-1).max()) + 1
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection


def encode_by_length(tower: Callable, tokens: torch.Tensor, *, chunk: int = 64):
    """Encode tokens in chunks of texts of like length: short ones need not wait for long ones.

    Parameters
    ----------
    tower : Tokens to (b, d), such as a `TextTower`.
    tokens : (n, context) int64.
    chunk : Texts a pass.

    Returns
    -------
    torch.Tensor
        (n, d), in the order of the tokens.
    """
    order = tokens.argmax(-1).argsort()
    encoded = torch.cat([tower(part) for part in tokens[order].split(chunk)])
    return encoded[order.argsort()]


@contextmanager
def fast_attention():
    """On a CPU the plain attention trains faster than the fused one: its backward is slow."""
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _is_plain(model) -> bool:
    """Tell whether the tower is the one of Radford et al.: causal, read at the end token."""
    return (
        isinstance(model, open_clip.model.CLIP)
        and model.attn_mask is not None
        and model.text_pool_type == "argmax"
        and isinstance(model.text_projection, torch.Tensor)
    )


class TextTower(torch.nn.Module):
    """The text tower of a model as a module: tokens in, vectors out."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode (n, context) tokens to (n, d), not normalised."""
        return encode_tokens(self.model, tokens)


class TextFeatures:
    """Texts to features as long as the tower makes them; some weights may be tuned ones.

    The model is shared and stays as it is: its own texts and tuned ones can be had side by side,
    but not from two threads at once, as it holds the tuned weights while it encodes with them.

    Parameters
    ----------
    encoder : The encoder, or the one that was tuned.
    weights : Name in the model's state to tensor, of the tower's weights that are replaced.

    Raises
    ------
    ValueError : If the model has no such weight, or of another shape.
    """

    def __init__(self, encoder, weights: Mapping[str, torch.Tensor] | None = None):
        weights = weights or {}
        check_text_weights(encoder, weights)
        self.encoder = encoder
        self.tower = TextTower(encoder.model).eval()
        own = dict(encoder.model.named_parameters())
        self.weights = {f"model.{name}": t.to(own[name]) for name, t in weights.items()}

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], *, batch_size: int = 256) -> np.ndarray:
        """Encode texts to (n, d) float32."""
        if not texts:
            return np.empty((0, self.encoder.dim), np.float32)
        tokens = self.encoder.tokenize(texts).to(self.encoder.device)
        return encode_by_length(self._encode, tokens, chunk=batch_size).cpu().numpy()

    def _encode(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional_call(self.tower, self.weights, (tokens,)).float()


def check_text_weights(encoder, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless all are weights of the encoder's text tower, in its shapes."""
    own = text_parameters(encoder.model)
    for name, tensor in weights.items():
        if name not in own:
            raise ValueError(f"{encoder.name} has no weight {name!r} in its text tower")
        if tensor.shape != own[name].shape:
            expected, found = tuple(own[name].shape), tuple(tensor.shape)
            raise ValueError(f"{name} of {encoder.name} has shape {expected}, got {found}")


def text_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of a model's text tower by name: all but image tower and scale."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(IMAGE_PREFIX) and name not in ("logit_scale", "logit_bias")
    }
