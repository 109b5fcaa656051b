import importlib
import subprocess
import sys
from types import SimpleNamespace

import regionlab.models.torchvision_cpu as torchvision_cpu
from regionlab.models.torchvision_cpu import suppress_non_maxima

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, nms


def iou(a, b):
    # float32 throughout, in the order of torchvision's kernel, so that ties agree to the bit
    overlap = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    inter = max(np.float32(0), overlap[0]) * max(np.float32(0), overlap[1])
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    with np.errstate(invalid="ignore"):
        return float(inter / (area_a + area_b - inter))


def brute_force_nms(boxes, scores, threshold):
    boxes, scores = boxes.numpy().astype(np.float32), scores.tolist()
    kept = []
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        if not any(iou(boxes[better], boxes[row]) > threshold for better in kept):
            kept.append(row)
    return kept


def random_boxes(n, *, seed, side=40, whole=False):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, 2, generator=generator) * side
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    return (boxes.round() if whole else boxes), torch.rand(n, generator=generator)


@pytest.mark.parametrize("threshold", [0, 0.1, 0.5, 0.7, 1])
@pytest.mark.parametrize("seed", range(3))
def test_nms_equals_brute_force(seed, threshold):
    boxes, scores = random_boxes(80, seed=seed)
    assert nms(boxes, scores, threshold).tolist() == brute_force_nms(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0, 0.1, 1 / 3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_ties_duplicates_and_boxes_without_area_equal_brute_force(seed, threshold):
    boxes, scores = random_boxes(120, seed=seed, side=4, whole=True)
    scores = (scores * 5).round()
    kept = suppress_non_maxima(boxes, scores, threshold).tolist()
    assert kept == brute_force_nms(boxes, scores, threshold)


def test_blocks_equal_one_pass(monkeypatch):
    boxes, scores = random_boxes(100, seed=5)
    monkeypatch.setattr(torchvision_cpu, "_BLOCK", 7)
    assert suppress_non_maxima(boxes, scores, 0.3).tolist() == brute_force_nms(boxes, scores, 0.3)


def test_overlap_equal_to_the_threshold_is_kept():
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]])  # IoU 1 / 3
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, float(np.float32(1 / 3))).tolist() == [0, 1]
    assert nms(boxes, scores, 0.33).tolist() == [0]


def test_equal_scores_keep_their_order():
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(5, 1)
    assert suppress_non_maxima(boxes, torch.ones(5), 0.5).tolist() == [0]
    apart = boxes + 2 * torch.arange(5)[:, None]
    assert suppress_non_maxima(apart, torch.ones(5), 0.5).tolist() == [0, 1, 2, 3, 4]


def test_boxes_without_area_stay():
    boxes = torch.zeros(3, 4)
    assert nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


def test_no_boxes_give_an_empty_int64_tensor():
    kept = nms(torch.empty(0, 4), torch.empty(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64


def test_quantized_operator_sees_the_same_overlaps():
    boxes, scores = random_boxes(60, seed=2, whole=True)
    levels = torch.randperm(60, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    kept = torch.ops.torchvision.qnms(boxes.to(torch.uint8), levels, 0.5)
    assert kept.tolist() == brute_force_nms(boxes, levels, 0.5)


@pytest.mark.parametrize("n", [100, 1100])  # torchvision takes another path above 4000 numbers
def test_batched_nms_suppresses_within_a_category_only(n):
    boxes, scores = random_boxes(n, seed=3)
    categories = torch.arange(n) % 3
    rows = [torch.where(categories == c)[0] for c in range(3)]
    kept = {int(r[i]) for r in rows for i in brute_force_nms(boxes[r], scores[r], 0.5)}
    expected = sorted(kept, key=lambda row: -scores[row].item())
    assert batched_nms(boxes, scores, categories, 0.5).tolist() == expected


@pytest.mark.parametrize(("boxes", "scores"), [((3, 5), (3,)), ((12,), (3,)), ((3, 4), (2,))])
def test_wrong_shapes_are_named(boxes, scores):
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\) and scores \(n,\), not \("):
        suppress_non_maxima(torch.zeros(boxes), torch.zeros(scores), 0.5)


def test_operator_survives_a_reload():
    importlib.reload(torchvision_cpu)
    assert nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5).tolist() == [0]


def test_open_clip_and_sam_import_even_after_torchvision_failed():
    code = """
try:
    import torchvision
except RuntimeError:
    pass
import regionlab.models.torchvision_cpu
import open_clip, segment_anything
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_changes_where_torchvision_has_its_operators(monkeypatch):
    def untouched():
        raise AssertionError

    boxes = SimpleNamespace(_assert_has_ops=untouched)
    complete = SimpleNamespace(
        extension=SimpleNamespace(_has_ops=lambda: True), ops=SimpleNamespace(boxes=boxes)
    )
    monkeypatch.setitem(sys.modules, "torchvision", complete)
    monkeypatch.setattr(torch.library, "define", lambda *args: untouched())
    importlib.reload(torchvision_cpu)
    assert boxes._assert_has_ops is untouched


def test_other_failures_of_torchvision_are_not_hidden(monkeypatch):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("CUDA versions differ")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(RuntimeError, match="CUDA versions differ"):
        importlib.reload(torchvision_cpu)


def run_fresh(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_open_clip_is_imported_without_timm_and_dynamo():
    code = (
        "import sys; from regionlab.models.torchvision_cpu import import_open_clip\n"
        "open_clip = import_open_clip()\n"
        "print([name for name in ('timm', 'torch._dynamo') if name in sys.modules])\n"
        "import torch._dynamo, timm\n"
        "print(torch._dynamo.__file__ is not None, timm.__version__ is not None)"
    )
    assert run_fresh(code).split("\n")[:2] == ["[]", "True True"]


def test_a_tower_of_timm_is_made_once_timm_is_added():
    code = (
        "from regionlab.models.torchvision_cpu import add_timm, import_open_clip\n"
        "open_clip = import_open_clip()\n"
        "add_timm()\n"
        "model = open_clip.create_model('convnext_base')\n"
        "print(type(model.visual).__name__)"
    )
    assert run_fresh(code).strip() == "TimmModel"
