"""Compact weights: how near they come, which rows are kept, and what is refused."""

import pytest
import torch

from regionlab.compose.files import (
    apply_changes,
    dequantize,
    find_changes,
    quantize,
    quantize_changes,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def matrix(generator):
    """Rows of very different sizes, one of zeros."""
    rows = torch.randn(6, 40, generator=generator)
    return rows * torch.tensor([1e-6, 1e-3, 1.0, 30.0, 1e4, 0.0])[:, None]


def test_int8_is_at_most_half_a_step_off_in_each_row(matrix):
    packed = quantize({"w": matrix}, "int8")
    assert packed["w"].dtype == torch.int8
    step = matrix.abs().amax(1) / 127
    error = (dequantize(packed)["w"] - matrix).abs().amax(1)
    assert (error <= step / 2 * (1 + 1e-4)).all()
    assert error[:5].min() > 0  # there is something to round


def test_the_largest_weight_of_a_row_is_kept_whatever_its_sign():
    matrix = torch.tensor([[-2.0, 1.0, 0.0], [0.5, -0.25, 0.0]])
    packed = quantize({"w": matrix}, "int8")
    assert packed["w"].tolist() == [[-127, 64, 0], [127, -64, 0]]
    torch.testing.assert_close(dequantize(packed)["w"][:, 0], torch.tensor([-2.0, 0.5]))


def test_vectors_and_all_of_fp16_are_halves(matrix):
    for dtype, name in (("fp16", "w"), ("fp16", "b"), ("int8", "b")):
        tensors = {"w": matrix, "b": matrix[2]}
        packed = quantize(tensors, dtype)
        assert packed[name].dtype == torch.float16
        assert torch.equal(dequantize(packed)[name], tensors[name].half().float())


def test_zeros_stay_zeros():
    assert torch.equal(
        dequantize(quantize({"w": torch.zeros(2, 3)}, "int8"))["w"], torch.zeros(2, 3)
    )


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="unknown dtype 'int4'; known: fp16, int8"):
        quantize({}, "int4")


# Changes


@pytest.fixture
def base(generator):
    shapes = {"w": (5, 8), "same": (3, 3), "b": (8,), "flat": (4,)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def tuned(base, generator):
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned["w"][[1, 4]] += 0.1 * torch.randn(2, 8, generator=generator)
    tuned["b"] += 0.1
    return tuned


def test_changes_hold_the_rows_that_changed_alone(tuned, base):
    changes = find_changes(tuned, base)
    assert list(changes) == ["w", "w.rows", "b"]
    assert changes["w.rows"].tolist() == [1, 4]
    assert torch.equal(changes["w"], (tuned["w"] - base["w"])[[1, 4]])


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_changes_applied_give_the_tuned_weights_again(tuned, base, dtype):
    again = apply_changes(quantize_changes(tuned, base, dtype), base)
    assert set(again) == {"w", "b"}
    change = (tuned["w"] - base["w"]).abs().amax(1, keepdim=True)
    bound = change / 127 / 2 if dtype == "int8" else change * 2**-11
    assert ((again["w"] - tuned["w"]).abs() <= bound * 1.001 + 1e-7).all()
    assert torch.equal(again["w"][[0, 2, 3]], base["w"][[0, 2, 3]])
    torch.testing.assert_close(again["b"], tuned["b"], atol=1e-4, rtol=0)


def test_the_base_is_not_changed(tuned, base):
    before = {name: tensor.clone() for name, tensor in base.items()}
    apply_changes(quantize_changes(tuned, base, "int8"), base)
    assert all(torch.equal(base[name], before[name]) for name in base)


def test_nothing_changed_is_nothing_kept(base):
    assert quantize_changes(base, base, "int8") == {}
    assert apply_changes({}, base) == {}


def test_a_change_of_a_weight_that_is_not_there_is_refused(tuned, base):
    packed = quantize_changes(tuned, base, "fp16")
    with pytest.raises(ValueError, match="no weight 'w'"):
        apply_changes(packed, {"b": base["b"]})


@pytest.mark.parametrize(
    ("name", "shape"),
    [("w", (5, 9)), ("w", (4, 8)), ("w", (8,)), ("b", (1,)), ("b", (9,)), ("b", (2, 8))],
)
def test_a_base_of_another_shape_is_refused(tuned, base, name, shape):
    packed = quantize_changes(tuned, base, "fp16")
    with pytest.raises(ValueError, match=f"shape .* does not fit {name}"):
        apply_changes(packed, base | {name: torch.zeros(shape)})
