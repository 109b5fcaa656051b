"""SAM within bounds of memory against SAM itself."""

import pytest
import torch

from regionlab.models import sam as bounded_sam
from regionlab.models.registry import load_segmenter
from regionlab.models.sam import AttentionByHeads, BoundedSam, bound_memory, create_toysam

from segment_anything.modeling.image_encoder import Attention  # isort: skip


@pytest.mark.parametrize("numbers", [1, 2 * 30**2, 10**9])
@pytest.mark.parametrize("rel_pos", [True, False])
def test_attention_by_heads_is_the_same(monkeypatch, numbers, rel_pos):
    torch.manual_seed(0)
    module = Attention(24, num_heads=6, use_rel_pos=rel_pos, input_size=(5, 6)).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 5, 6, 24, dtype=torch.float64)
    expected = module(tokens)
    monkeypatch.setattr(bounded_sam, "NUMBERS", numbers)
    module.__class__ = AttentionByHeads
    torch.testing.assert_close(module(tokens), expected)


def test_never_are_more_heads_at_work_than_the_limit_or_one(monkeypatch):
    module = AttentionByHeads(24, num_heads=6)
    heads, attend = [], module._attend
    monkeypatch.setattr(
        module, "_attend", lambda q, *rest: heads.append(len(q)) or attend(q, *rest)
    )
    for numbers, most in ((1, 1), (4 * 30**2, 4), (10**9, 12)):
        monkeypatch.setattr(bounded_sam, "NUMBERS", numbers)
        module(torch.zeros(2, 5, 6, 24))
        assert (max(heads), sum(heads)) == (most, 12)
        heads.clear()


def test_all_of_a_sams_attention_is_bound_when_it_is_loaded():
    def kinds(sam):
        return {type(m) for m in sam.image_encoder.modules() if isinstance(m, Attention)}

    assert kinds(create_toysam()) == {Attention}
    assert kinds(bound_memory(create_toysam())) == {AttentionByHeads}
    assert kinds(load_segmenter("toysam/untrained").predictor.model) == {AttentionByHeads}


@pytest.mark.parametrize("size", [(30, 40), (64, 65), (300, 400), (700, 300)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_masks_are_enlarged_to_the_very_same_numbers(size, batch, channels):
    sam = create_toysam()
    side = sam.image_encoder.img_size
    scale = side / max(size)
    inside = tuple(round(scale * length) for length in size)
    logits = torch.randn(batch, channels, side // 4, side // 4)
    expected = sam.postprocess_masks(logits, inside, size)
    found = bound_memory(sam).postprocess_masks(logits, inside, size)
    assert isinstance(sam, BoundedSam)
    assert torch.equal(found, expected)


def test_three_masks_of_a_picture_are_enlarged_as_torch_does_without_a_copy():
    sam = bound_memory(create_toysam())
    found = sam.postprocess_masks(torch.randn(1, 3, 32, 32), (96, 128), (300, 400))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.flatten(0, 1).data_ptr() == found.data_ptr()
