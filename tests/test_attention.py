"""SAM's attention by heads against its own."""

import pytest
import torch

from regionlab import attention
from regionlab.attention import AttentionByHeads, bound_attention
from regionlab.segmenters import load_segmenter
from regionlab.toybox.toysam import create_toysam

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
    monkeypatch.setattr(attention, "NUMBERS", numbers)
    module.__class__ = AttentionByHeads
    torch.testing.assert_close(module(tokens), expected)


def test_never_are_more_heads_at_work_than_the_limit_or_one(monkeypatch):
    module = AttentionByHeads(24, num_heads=6)
    heads, attend = [], module._attend
    monkeypatch.setattr(
        module, "_attend", lambda q, *rest: heads.append(len(q)) or attend(q, *rest)
    )
    for numbers, most in ((1, 1), (4 * 30**2, 4), (10**9, 12)):
        monkeypatch.setattr(attention, "NUMBERS", numbers)
        module(torch.zeros(2, 5, 6, 24))
        assert (max(heads), sum(heads)) == (most, 12)
        heads.clear()


def test_all_of_a_sams_attention_is_bound_when_it_is_loaded():
    def kinds(sam):
        return {type(m) for m in sam.image_encoder.modules() if isinstance(m, Attention)}

    assert kinds(create_toysam()) == {Attention}
    assert kinds(bound_attention(create_toysam())) == {AttentionByHeads}
    assert kinds(load_segmenter("toysam/untrained").predictor.model) == {AttentionByHeads}
