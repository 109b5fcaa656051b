"""Import torchvision on a CPU, and open_clip without what few of its models need.

torchvision from the package index is built against CUDA. On a CPU-only torch its operators do not
load, and ``import torchvision`` fails with "operator torchvision::nms does not exist"; open_clip,
timm and segment_anything fail with it. Importing this module registers the missing operators, in
plain torch, and imports torchvision. Where torchvision's own operators load they stay as they are.

Import it before anything that imports torchvision::

    import regionlab.models.torchvision_cpu  # noqa: F401
    import segment_anything

`import_open_clip` takes half the time of ``import open_clip``: see there.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

_BLOCK = 512  # boxes compared with all others at once; bounds the memory


def suppress_non_maxima(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Return the boxes that remain after non-maximum suppression, best first.

    A box goes when its IoU with a better box that stays is strictly greater than
    the threshold, as in torchvision's own operator. Boxes of equal score keep
    their order. A box without area overlaps nothing, so it always stays.

    Parameters
    ----------
    boxes : (n, 4) XYXY, of any number type.
    scores : (n,), higher is better.
    iou_threshold : In [0, 1].

    Returns
    -------
    torch.Tensor
        (kept,) int64 rows of `boxes`.

    Raises
    ------
    ValueError : If the shapes are not (n, 4) and (n,).
    """
    from torchvision.ops import box_iou

    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        shapes = f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
        raise ValueError(f"boxes must be (n, 4) and scores (n,), not {shapes}")
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))  # uint8 would wrap around
    rest = scores.argsort(descending=True, stable=True)
    kept = [rest[:0]]
    while len(rest):
        block = rest[:_BLOCK]
        # Compared in double, as the C++ does: rounding the threshold to float moves ties.
        overlaps = box_iou(boxes[block], boxes[rest]).double() > iou_threshold
        stays = torch.ones(len(rest), dtype=torch.bool)
        for row in range(len(block)):
            if stays[row]:
                stays[row + 1 :] &= ~overlaps[row, row + 1 :]
        kept.append(block[stays[: len(block)]])
        rest = rest[len(block) :][stays[len(block) :]]
    return torch.cat(kept)


def _register_operators() -> None:
    # torchvision registers the meta kernels itself; it is that step which fails without these.
    # qnms gets a quantized tensor's integers: IoU is the same in any unit and from any zero.
    for name in ("torchvision::nms", "torchvision::qnms"):
        torch.library.define(name, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.impl(name, "cpu", suppress_non_maxima)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Keep torchvision from importing `torch._dynamo`, which takes longer than all else.

    `torchvision.ops.roi_align` takes one function from it, to ask before it compiles.
    """
    names = ("torch._dynamo", "torch._dynamo.utils")
    if names[0] in sys.modules:
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return is_compile_supported(device_type)

    package, utils = map(ModuleType, names)
    package.utils, utils.is_compile_supported = utils, is_compile_supported
    sys.modules.update({names[0]: package, names[1]: utils})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def import_open_clip() -> ModuleType:
    """Return open_clip, imported without timm, which only some of its image towers need.

    timm brings `torch._dynamo`: the two take half of the time. Call `add_timm` before one of these
    towers is made.
    """
    if "open_clip" not in sys.modules and "timm" not in sys.modules:
        sys.modules["timm"] = None  # open_clip takes it for not installed
        try:
            import open_clip
        finally:
            del sys.modules["timm"]
    import open_clip

    return open_clip


def add_timm() -> None:
    """Give open_clip timm, for architectures whose configuration names one of its models."""
    import timm
    from open_clip import timm_model
    from timm import layers

    timm_model.timm = timm
    timm_model.RotAttentionPool2d = layers.RotAttentionPool2d
    timm_model.AbsAttentionPool2d = layers.AttentionPool2d
    timm_model.Mlp, timm_model.to_2tuple = layers.Mlp, layers.to_2tuple


def _import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _register_operators()
        import torchvision
    if not torchvision.extension._has_ops():
        # ops.nms asks for the C++ library before it calls the operator, which now exists.
        torchvision.ops.boxes._assert_has_ops = lambda: None


with _without_dynamo():
    _import_torchvision()
