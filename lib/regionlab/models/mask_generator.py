"""All regions of an image by SAM: its automatic mask generator, with a faster decoder.

SAM's own `MaskDecoder` repeats the image's cells for every prompt and projects them all to keys
and values, three times over. But the cells are many (64 x 64) and a prompt's tokens are few (7), so
here the tokens are projected into the space of the cells: for a head (q Wq)(x Wk)^T is
(q Wq Wk^T) x^T, and a (x Wv) is (a x) Wv. What is the same for all prompts is computed once, and
masks of low predicted quality, and most of those that are alike, are never enlarged.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from regionlab.data.masks import MaskBits
from regionlab.models import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU
from regionlab.models.segmenter import MaskGeneratorConfig

from segment_anything import SamPredictor  # isort: skip
from segment_anything.utils.amg import (  # isort: skip
    batched_mask_to_box,
    build_point_grid,
    calculate_stability_score,
)
from torchvision.ops.boxes import batched_nms  # isort: skip

PIXELS = 2**26  # of enlarged logits that are in memory at a time; three masks at the least
NUMBERS = {"cpu": 2**19, "cuda": 2**28}  # of cells that are decoded at a time: cache, and memory
SLACK = 0.1  # the stability of small logits, by which they are sifted first, is so near to SAM's
TWIN_IOU = 0.98  # of small masks that are the same to the eye


class Decoded(NamedTuple):
    """Masks of points: (k, 4g, 4g) logits, (k,) predicted IoU, and (k,) rows of the points."""

    logits: torch.Tensor
    quality: torch.Tensor
    rows: torch.Tensor

    def take(self, which: torch.Tensor) -> "Decoded":
        """Return some of the masks, by number or by (k,) bool."""
        return Decoded(*(field[which] for field in self))


@torch.no_grad()
def generate_masks(predictor: SamPredictor, settings: MaskGeneratorConfig) -> list[dict]:
    """Return the records of `SamAutomaticMaskGenerator` for the image that is set, best first.

    Nearly all masks are SAM's own to the pixel, in less than half of the time. Memory holds
    `PIXELS` of logits, and the bits of the masks found so far.

    Returns
    -------
    list of dict
        `segmentation` as `MaskBits`, `area` in pixels, `predicted_iou`, `stability_score` and
        `point_coords`, [[x, y]] of the point of the grid.
    """
    height, width = predictor.original_size
    points = build_point_grid(settings.points_per_side) * (width, height)
    parts = [
        _ask(predictor, points[start : start + settings.points_per_batch], settings)
        for start in range(0, len(points), settings.points_per_batch)
    ]
    found = _join(parts)
    masks, kept = found["masks"], _suppress(found, settings)
    quality, stability, xy = (found[key].cpu().numpy() for key in ("quality", "stability", "xy"))
    records = []
    for i in kept.tolist():
        record = {"segmentation": masks[i], "area": masks[i].area}
        record |= {"predicted_iou": quality[i].item(), "stability_score": stability[i].item()}
        records.append(record | {"point_coords": [xy[i].tolist()]})
    large = [record for record in records if record["area"] >= settings.min_area]
    return rank_records(large)[: settings.max_regions]


def rank_records(records: Sequence[dict]) -> list[dict]:
    """Return SAM's records with the best predicted IoU first, and each mask once.

    `segmentation` of a record is (H, W) bool, or its `MaskBits`.
    """
    ranked = sorted(records, key=lambda record: record["predicted_iou"], reverse=True)
    chosen: dict[MaskBits, dict] = {}
    for record in ranked:
        mask = record["segmentation"]
        chosen.setdefault(mask if isinstance(mask, MaskBits) else MaskBits(mask), record)
    return list(chosen.values())


def _ask(
    predictor: SamPredictor, points: np.ndarray, settings: MaskGeneratorConfig
) -> dict[str, Any]:
    """Return what points of the image show, the masks that pass the thresholds.

    Of masks that are alike the best is enlarged first; then what non-maximum suppression, whoever
    survives it, is not sure to take away.
    """
    found = decode_points(predictor, points, settings.pred_iou_thresh)
    low, threshold = _cut_padding(predictor, found.logits), predictor.model.mask_threshold
    score = calculate_stability_score(low, threshold, settings.stability_score_offset)
    near = score >= settings.stability_score_thresh - SLACK
    found, small = found.take(near), low[near] > threshold
    boxes = batched_mask_to_box(small).float()
    distinct = _find_distinct(small, found.quality)
    rows = distinct.nonzero()[:, 0]
    first = _enlarge_stable(predictor, points, found, rows, settings)
    best = first["row"][_suppress(first, settings)]
    sure = _bound_box_iou(boxes, boxes[best]) > settings.box_nms_thresh
    sure &= found.quality[:, None] < found.quality[best]
    rows = (~distinct & ~sure.any(1)).nonzero()[:, 0]
    return _join([first, _enlarge_stable(predictor, points, found, rows, settings)])


def _enlarge_stable(
    predictor: SamPredictor,
    points: np.ndarray,
    found: Decoded,
    rows: torch.Tensor,
    settings: MaskGeneratorConfig,
) -> dict[str, Any]:
    """Return the stable ones of some rows of what was found, in the image's size."""
    low, quality, of_point = found.take(rows)
    threes = max(1, PIXELS // (3 * math.prod(predictor.original_size)))
    sifted = [_sift(predictor, part, settings) for part in low.split(3 * threes)]
    masks, box, stability = (list(part) for part in zip(*sifted, strict=True))
    stability = torch.cat(stability)
    stable = stability >= settings.stability_score_thresh
    return {
        "masks": [mask for part in masks for mask in part],
        "box": torch.cat(box).float(),
        "quality": quality[stable],
        "stability": stability[stable],
        "xy": torch.as_tensor(points)[of_point.cpu()][stable.cpu()],
        "row": rows[stable],
    }


def _join(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return masks of several batches as one."""
    masks = [mask for part in parts for mask in part["masks"]]
    names = [name for name in parts[0] if name != "masks"]
    return {"masks": masks, **{name: torch.cat([part[name] for part in parts]) for name in names}}


def _suppress(found: dict[str, Any], settings: MaskGeneratorConfig) -> torch.Tensor:
    """Return which masks are left by non-maximum suppression of their boxes, best first."""
    one_class = torch.zeros(len(found["masks"]))
    return batched_nms(found["box"], found["quality"], one_class, settings.box_nms_thresh)


def _cut_padding(predictor: SamPredictor, low: torch.Tensor) -> torch.Tensor:
    """Return the part of logits (k, g, g) that is of the image: SAM pads the shorter side."""
    height, width = (
        math.ceil(side * low.shape[-1] / predictor.model.image_encoder.img_size)
        for side in predictor.input_size
    )
    return low[:, :height, :width]


def _find_distinct(small: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Return the best of the masks (k, h, w) bool that are alike, (k,) bool."""
    rows = quality.argsort(descending=True, stable=True)
    inside = small[rows].flatten(1).float()
    both, area = inside @ inside.T, inside.sum(1)
    alike = (both > TWIN_IOU * (area[:, None] + area - both)).cpu().numpy()
    best = np.ones(len(rows), bool)
    for i in range(len(rows)):
        if best[i]:
            best[i + 1 :] &= ~alike[i, i + 1 :]
    distinct = torch.zeros_like(quality, dtype=torch.bool)
    distinct[rows[torch.from_numpy(best).to(rows.device)]] = True
    return distinct


def _bound_box_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return what the IoU (n, m) of boxes is at least, each side of them being off by a cell."""
    least = [torch.cat([box[:, :2] + 1, box[:, 2:] - 1], dim=1) for box in (a, b)]
    corners = torch.maximum(least[0][:, None, :2], least[1][None, :, :2])
    sides = (torch.minimum(least[0][:, None, 2:], least[1][None, :, 2:]) - corners).clamp(min=0)
    most = [(box[:, 2:] - box[:, :2] + 2).prod(1) for box in (a, b)]
    both = sides.prod(2)
    return both / (most[0][:, None] + most[1] - both)


def _sift(
    predictor: SamPredictor, low: torch.Tensor, settings: MaskGeneratorConfig
) -> tuple[list[MaskBits], torch.Tensor, torch.Tensor]:
    """Return the stable masks of logits (k, g, g), their boxes, and the stability of all k."""
    threshold, logits = predictor.model.mask_threshold, _enlarge(predictor, low)
    found, boxes, stability = [], [], []
    # What is made of the logits may take as much as these again.
    for part in logits.split(max(1, PIXELS // (4 * math.prod(predictor.original_size)))):
        score = calculate_stability_score(part, threshold, settings.stability_score_offset)
        masks = (part > threshold)[score >= settings.stability_score_thresh]
        found += map(MaskBits, masks.cpu().numpy())
        boxes.append(batched_mask_to_box(masks))
        stability.append(score)
    return found, torch.cat(boxes), torch.cat(stability)


def _enlarge(predictor: SamPredictor, low: torch.Tensor) -> torch.Tensor:
    """Enlarge logits (k, g, g) to the image's size.

    In threes, as SAM's generator does: for another number of channels torch takes another way,
    with other last digits.
    """
    padded = functional.pad(low, (0, 0, 0, 0, 0, -len(low) % 3))
    threes = padded.reshape(len(padded) // 3, 3, *low.shape[1:])
    sizes = predictor.input_size, predictor.original_size
    return predictor.model.postprocess_masks(threes, *sizes).flatten(0, 1)[: len(low)]


# The decoder


@torch.no_grad()
def decode_points(predictor: SamPredictor, points: np.ndarray, least: float = -math.inf) -> Decoded:
    """Return what SAM's mask decoder makes of (n, 2) points of the image, each asked alone.

    Three masks a point, those whose predicted IoU is above `least` (0 for any, as in SAM's
    generator). The numbers are those of SAM's own code but for rounding.
    """
    model, decoder = predictor.model, predictor.model.mask_decoder
    xy = predictor.transform.apply_coords(points, predictor.original_size)
    xy = torch.as_tensor(xy, device=predictor.device)[:, None]
    inside = torch.ones(xy.shape[:2], dtype=torch.int, device=predictor.device)
    sparse, dense = model.prompt_encoder(points=(xy, inside), boxes=None, masks=None)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(len(points), -1, -1), sparse], dim=1)
    image = _to_cells(predictor.features + dense[:1])  # (1, g * g, c)
    places = _to_cells(model.prompt_encoder.get_dense_pe())[0]
    some = max(1, NUMBERS.get(predictor.device.type, NUMBERS["cpu"]) // places.numel())
    least = least or -math.inf
    parts = [_decode(decoder, part, image, places, least) for part in tokens.split(some)]
    first = torch.arange(0, len(points), some).tolist()
    rows = [part.rows + start for part, start in zip(parts, first, strict=True)]
    logits, quality, _ = (torch.cat(field) for field in zip(*parts, strict=True))
    return Decoded(logits, quality, torch.cat(rows))


def _to_cells(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).transpose(1, 2).contiguous()


def _decode(decoder, tokens: torch.Tensor, image, places, least: float) -> Decoded:
    """Do what `MaskDecoder` does with (n, t, c) tokens and an image's cells."""
    queries, cells = tokens, image
    for block in decoder.transformer.layers:
        asked = queries if block.skip_first_layer_pe else queries + tokens
        attended = block.self_attn(q=asked, k=asked, v=queries)
        queries = block.norm1(attended if block.skip_first_layer_pe else queries + attended)
        attended = _look(block.cross_attn_token_to_image, queries + tokens, cells, places)
        queries = block.norm2(queries + attended)
        queries = block.norm3(queries + block.mlp(queries))
        cells = _tell(block.cross_attn_image_to_token, queries + tokens, queries, cells, places)
        cells = block.norm4(cells)
    attended = _look(decoder.transformer.final_attn_token_to_image, queries + tokens, cells, places)
    queries = decoder.transformer.norm_final_attn(queries + attended)
    quality = decoder.iou_prediction_head(queries[:, 0])[:, 1:]  # the first is for other prompts
    good = quality > least
    rows = good.any(1).nonzero()[:, 0]
    logits = _draw(decoder, queries[rows], cells[rows])
    return Decoded(logits[good[rows]], quality[good], good.nonzero()[:, 0])


def _look(attention, queries: torch.Tensor, cells: torch.Tensor, places) -> torch.Tensor:
    """Return what (n, t, c) queries find in (n or 1, m, c) cells at places (m, c)."""
    n, t, c = queries.shape
    heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
    to_key, to_value = (
        p.weight.view(heads, width, c) for p in (attention.k_proj, attention.v_proj)
    )
    asked = attention.q_proj(queries).view(n, t, heads, width).transpose(1, 2) / math.sqrt(width)
    asked = (asked @ to_key).reshape(n, heads * t, c)
    if len(cells) == 1:
        found = (asked.flatten(0, 1) @ (cells[0] + places).T).softmax(-1) @ cells[0]
    else:
        scores = asked.flatten(0, 1) @ places.T
        scores = torch.baddbmm(scores.view(n, heads * t, -1), asked, cells.transpose(1, 2))
        found = scores.softmax(-1) @ cells
    values = found.view(n, heads, t, c) @ to_value.transpose(1, 2)
    values = values.transpose(1, 2).reshape(n, t, -1) + attention.v_proj.bias
    return attention.out_proj(values)


def _tell(attention, keys: torch.Tensor, values: torch.Tensor, cells, places) -> torch.Tensor:
    """Return (n or 1, m, c) cells at places (m, c) plus what they find in (n, t, c) tokens."""
    n, t, c = keys.shape
    heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
    keys = attention.k_proj(keys).view(n, t, heads, width).transpose(1, 2) / math.sqrt(width)
    offset = keys @ attention.q_proj.bias.view(heads, width, 1)
    keys = (keys @ attention.q_proj.weight.view(heads, width, c)).reshape(n, heads * t, c)
    if len(cells) == 1:
        scores = (keys.flatten(0, 1) @ (cells[0] + places).T).view(n, heads * t, -1)
    else:
        scores = (keys.flatten(0, 1) @ places.T).view(n, heads * t, -1)
        scores = torch.baddbmm(scores, keys, cells.transpose(1, 2))
    shares = (scores.view(n, heads, t, -1) + offset).softmax(2).flatten(1, 2)  # (n, heads * t, m)
    values = attention.v_proj(values).view(n, t, heads, width).transpose(1, 2)
    values = values @ attention.out_proj.weight.view(c, heads, width).permute(1, 2, 0)
    values = values.reshape(n, heads * t, c) + attention.out_proj.bias / heads
    return torch.baddbmm(cells.expand(n, -1, -1), shares.transpose(1, 2), values)


def _draw(decoder, queries: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return three masks of each prompt, (n, 3, 4g, 4g) logits."""
    side = math.isqrt(cells.shape[1])
    first, norm, activate, second, _ = decoder.output_upscaling
    fine = activate(_layer_norm(_split_cells(first, cells), norm))
    fine = activate(_split_cells(second, fine))
    heads = decoder.output_hypernetworks_mlps
    kernels = torch.stack([heads[i](queries[:, 1 + i]) for i in range(1, len(heads))], dim=1)
    masks = (kernels @ fine.transpose(1, 2)).view(*kernels.shape[:2], side, side, 2, 2, 2, 2)
    return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*kernels.shape[:2], 4 * side, 4 * side)


def _split_cells(convolution: torch.nn.ConvTranspose2d, cells: torch.Tensor) -> torch.Tensor:
    """Split (n, m, c) cells in four, row by row: a transposed convolution of size and stride 2."""
    weight = convolution.weight.permute(2, 3, 1, 0).reshape(-1, cells.shape[2])
    fine = functional.linear(cells, weight, convolution.bias.repeat(4))
    return fine.view(len(cells), 4 * cells.shape[1], convolution.out_channels)


def _layer_norm(x: torch.Tensor, norm) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
