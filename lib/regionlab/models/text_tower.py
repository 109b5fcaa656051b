"""The text tower of a CLIP by itself: encode no further than the words reach, and tuned copies."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from regionlab.models import torchvision_cpu  # noqa: F401 - makes open_clip importable on a CPU-only torch

from open_clip.model import CLIP  # isort: skip


IMAGE_PREFIX = "visual."


def encode_tokens(model, tokens: torch.Tensor) -> torch.Tensor:
    """Encode texts as `model.encode_text` does, but only as far as the longest of them reaches.

    Under the causal mask what follows the end token changes nothing, so it need not be computed.
    A text tower of another build than CLIP's own is asked as it is.

    Parameters
    ----------
    tokens
        (n, context) int64, zero-padded.

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
    tower
        Tokens to (b, d), such as a `TextTower`.
    tokens
        (n, context) int64.
    chunk
        Texts a pass.

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
        isinstance(model, CLIP)
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
    encoder
        The encoder, or the one that was tuned.
    weights
        Name in the model's state to tensor, of the tower's weights that are replaced.

    Raises
    ------
    ValueError
        If the model has no such weight, or of another shape.
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
