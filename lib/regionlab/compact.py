"""Compact weights: rows in 8-bit integers, and changes to a model instead of the whole of it."""

from collections.abc import Mapping

import torch

SCALE, ROWS = ".scale", ".rows"  # endings of the tensors that go with a compact one
DTYPES = ("fp16", "int8")
Tensors = dict[str, torch.Tensor]


def pack(tensors: Mapping[str, torch.Tensor], dtype: str) -> Tensors:
    """Make tensors small; vectors stay in fp16.

    Parameters
    ----------
    tensors
        By name.
    dtype
        "fp16"; or "int8", each row of a matrix as whole numbers in [-127, 127] times a scale.

    Raises
    ------
    ValueError
        If `dtype` is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    packed: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().float().cpu().contiguous()
        if dtype == "fp16" or tensor.ndim < 2:
            packed[name] = tensor.half()
        else:
            scale = tensor.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            packed[name] = (tensor / scale).round().to(torch.int8)
            packed[name + SCALE] = scale
    return packed


def unpack(packed: Mapping[str, torch.Tensor]) -> Tensors:
    """Return what `pack` was given, in fp32, as near as its type allows."""
    return {
        name: tensor.float() * packed.get(name + SCALE, torch.ones(()))
        for name, tensor in packed.items()
        if not name.endswith((SCALE, ROWS))
    }


def take_changes(tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return how tuned weights differ from the base: of a matrix, the rows that do, and which.

    A weight that did not change is left out.
    """
    changes: Tensors = {}
    for name, tensor in tuned.items():
        change = tensor.detach().float().cpu() - base[name].detach().float().cpu()
        if change.ndim == 2:
            rows = change.abs().amax(1).nonzero().ravel().int()
            if len(rows):
                changes |= {name: change[rows], name + ROWS: rows}
        elif change.abs().max() > 0:
            changes[name] = change
    return changes


def pack_changes(
    tuned: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], dtype: str
) -> Tensors:
    """Pack the changes from base to tuned weights."""
    changes = take_changes(tuned, base)
    rows = {name: tensor for name, tensor in changes.items() if name.endswith(ROWS)}
    values = {name: tensor for name, tensor in changes.items() if name not in rows}
    return pack(values, dtype) | rows


def apply_changes(packed: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tuned weights, fp32, of packed changes and the base.

    Raises
    ------
    ValueError
        If the base has no such weight, or of another shape.
    """
    tuned: Tensors = {}
    for name, change in unpack(packed).items():
        if name not in base:
            raise ValueError(f"the model has no weight {name!r}")
        own, rows = base[name].detach().float().cpu(), packed.get(name + ROWS)
        expected = own.shape if rows is None else (len(rows), *own.shape[1:])
        try:
            if change.shape != expected:
                raise IndexError(f"expected {tuple(expected)}")
            tuned[name] = own + change if rows is None else own.index_add(0, rows.long(), change)
        except (RuntimeError, IndexError) as e:
            found = tuple(change.shape)
            raise ValueError(f"a change of shape {found} does not fit {name}: {e}") from e
    return tuned
