"""Words choose a region: masks of everything, ranked by CLIP (S0, figure 1, text branch)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from regionlab.data.prompts import Prompt, Text, as_prompts
from regionlab.models.encoder import DEFAULT_TEMPLATES, Encoder
from regionlab.models.segmenter import MaskGeneratorConfig, Region, Segmenter
from regionlab.models.spaces import find_difference
from regionlab.regions.encodings import DEFAULT_ENCODING, encode_regions
from regionlab.util.errors import RegionlabError

# What most of an image is when it is none of the things asked for.
BACKGROUND_WORDS = ("background", "the ground", "a wall", "the sky", "grass", "sand", "water")


class NothingFoundError(RegionlabError, ValueError):
    """No region of an image looks like the words; says how near the best one came."""


def find_words(
    image: np.ndarray,
    text: str | Text,
    segmenter: Segmenter,
    encoder: Encoder,
    *,
    encoding: str = DEFAULT_ENCODING,
    contrast: str | Sequence[str] = BACKGROUND_WORDS,
    threshold: float = 0.5,
    templates: str | Sequence[str] = DEFAULT_TEMPLATES,
    everything: MaskGeneratorConfig | None = None,
) -> list[Region]:
    """Return the regions of an image that words describe, the likeliest first.

    Every mask that the segmenter finds is encoded, all of them together, and compared with the
    words: f_text . f_masked_region (S0, the second equation 7). This is not the direct search
    for images by text, which is `search.search_text`.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB.
    text : The words; `Text(words, every=True)` asks for all regions above the threshold, else the
        best one is returned.
    encoding : How CLIP is shown a region, a name in `regions.REGION_ENCODINGS`.
    contrast : Words for what is not meant, see `score_words`; without any there is no threshold.
        With background words alone, another object may pass for the one asked for: give the names
        of what else may be there.
    threshold : Least probability of a region that is returned.
    templates : Wordings around the words, see `Encoder.encode_texts`.
    everything : Which masks are looked at; by default the segmenter's own settings.

    Returns
    -------
    list of Region
        At least one, `prompt` being the text.

    Raises
    ------
    NothingFoundError : If the image has no regions, or none reaches the threshold.
    """
    text = text if isinstance(text, Text) else Text(text)
    regions = segmenter.segment_everything(image, settings=everything)
    if not regions:
        raise NothingFoundError(f"{segmenter.name} finds no region in the image at all")
    vectors = encode_regions(encoder, image, (r.mask for r in regions), encoding=encoding)
    similarity, probability = score_words(
        encoder, vectors, text.words, contrast=contrast, templates=templates
    )
    order = np.argsort(-similarity, kind="stable")
    fitting = [row for row in order if probability[row] >= threshold]
    if not fitting:
        best = probability.argmax()
        raise NothingFoundError(
            f"no region looks like {text.words!r}: of {len(regions)} regions the best has "
            f"probability {probability[best]:.2f}, below the threshold of {threshold}; "
            "say it in other words, or lower the threshold"
        )
    chosen = fitting if text.every else fitting[:1]
    return [replace(regions[row], prompt=text) for row in chosen]


def score_words(
    encoder: Encoder,
    vectors: np.ndarray,
    words: str,
    *,
    contrast: str | Sequence[str] = BACKGROUND_WORDS,
    templates: str | Sequence[str] = DEFAULT_TEMPLATES,
) -> tuple[np.ndarray, np.ndarray]:
    """Tell how much regions look like words, and how likely they are that and nothing else.

    Parameters
    ----------
    vectors : (r, d) float32, unit length, from `encode_regions`.
    contrast : Words that compete with the first, such as for the background.

    Returns
    -------
    similarity
        (r,) float32, the cosine f_text . f_masked_region (S0, the second equation 7).
    probability
        (r,) float32: softmax of the cosines with the words and the contrast, at the
        temperature that CLIP was trained with; 1 without contrast.
    """
    contrast = [contrast] if isinstance(contrast, str) else contrast
    contrast = [other for other in contrast if other != words]
    texts = encoder.encode_texts([words, *contrast], templates=templates)
    if difference := find_difference(vectors, texts):
        raise ValueError(f"the words cannot be compared with these regions: {difference}")
    cosines = np.asarray(vectors) @ np.asarray(texts).T
    logits = encoder.model.logit_scale.exp().item() * cosines
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return cosines[:, 0], odds[:, 0] / odds.sum(1)


def find_regions(
    image: np.ndarray,
    prompts: Prompt | Iterable[Prompt],
    segmenter: Segmenter,
    encoder: Encoder | None = None,
    **options,
) -> list[Region]:
    """Return the regions that prompts of any kind mean, in their order.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB.
    prompts : One or several; a `Text` with `every` may give several regions.
    encoder : Needed for `Text` only.
    options : For `find_words`.

    Raises
    ------
    ValueError : If there is a `Text` and no encoder, or a prompt finds nothing.
    """
    found: list[Region] = []
    for prompt in as_prompts(prompts):
        if not isinstance(prompt, Text):
            found.append(segmenter.segment(image, prompt))
        elif encoder is None:
            raise ValueError(f"{prompt} needs an encoder, to compare words with regions")
        else:
            found += find_words(image, prompt, segmenter, encoder, **options)
    return found
