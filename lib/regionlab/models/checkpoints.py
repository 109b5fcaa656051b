"""Read the weights in a file, whatever a training script has put around them.

State dicts lie under a key, beside options and optimizers, and their names have the prefixes of
what the model was wrapped in. No code in a file is ever run: objects of unknown classes become
empty ones, and what calls Python's own functions is refused.
"""

import argparse
import datetime
import pathlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from regionlab.util.errors import RegionlabError

# Under which scripts save a state dict, the first of several that are there being taken
KEYS = (
    "state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights",
    "params", "ema", "model_ema", "state_dict_ema", "ema_state_dict",
)  # fmt: skip
# What names begin with, all of them, after DataParallel, Lightning and the like
PREFIXES = (
    "module.",
    "_forward_module.",
    "model.",
    "net.",
    "network.",
    "clip.",
    "clip_model.",
    "sam.",
    "sam_model.",
)
# What torch.compile, FSDP and checkpointing put in wherever they wrapped
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
HARMLESS = (
    argparse.Namespace, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath,
    pathlib.PureWindowsPath, datetime.date, datetime.datetime, datetime.timedelta,
)  # fmt: skip
SHOWN = 100  # characters of each part of a reason


class CheckpointError(RegionlabError, ValueError):
    """A file without weights that can be read; says why."""


class Unknown:
    """What stands for an object of a class that is not loaded."""

    def __new__(cls, *_: Any, **__: Any) -> "Unknown":
        """Take anything, do nothing."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take anything, do nothing."""

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint by name, on the CPU, without wrappers and prefixes.

    Parameters
    ----------
    path
        A `.safetensors` file, or what `torch.save` made of a state dict, alone or in a dict
        under one of `KEYS` or as the only one.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds no state dict or several, or calls functions.
    """
    content, unknown = _read_content(path)
    return strip_names(_find_state(content, unknown))


def strip_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict under the names of the model itself, what wrapped it left out."""
    for wrapper in WRAPPERS:
        state = {name.replace(wrapper, ""): tensor for name, tensor in state.items()}
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if not all(state):
            raise CheckpointError(f"it holds nothing but a tensor named {prefix!r}")
    return dict(state)


def tell_misfit(error: Exception) -> str:
    """Return what a model says of weights that are not its own, shortly: which ones, for a start.

    Parameters
    ----------
    error
        Of `load_state_dict`, or of a conversion that missed a name.
    """
    if isinstance(error, KeyError):
        return f"it has no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Error(s) in loading")] or [repr(error)]
    return "; ".join(line if len(line) <= SHOWN else f"{line[:SHOWN]}…" for line in lines[:2])


def tell_why(error: Exception) -> str:
    """Return in short words why a file could not be read."""
    line = str(error).strip().partition("\n")[0]
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds more than tensors, which is not loaded"
    if "TorchScript" in line:
        return "it is a TorchScript archive, which may hold code, and none that is published"
    return f"it may be cut short ({type(error).__name__}: {line[:200]})"


def _read_content(path: Path) -> tuple[Any, list[str]]:
    """Return what is in the file, and the names of the classes that are not loaded."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), []
        with torch.serialization.safe_globals(list(HARMLESS)):
            unknown = _find_unknown(path)
        stubs = [(type("Unknown", (Unknown,), {}), name) for name in unknown]
        with torch.serialization.safe_globals([*HARMLESS, *stubs]):
            return torch.load(path, map_location="cpu", weights_only=True), unknown
    except CheckpointError:
        raise
    except Exception as e:  # torch, pickle, zip and safetensors have errors of their own
        raise CheckpointError(tell_why(e)) from e


def _find_unknown(path: Path) -> list[str]:
    """Return the classes in a file that torch does not load by itself.

    Raises
    ------
    CheckpointError
        If one is of Python's own library, as those are by which files run code.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # damaged or of an older form: reading it says what is wrong
        return []
    if own := [n for n in names if n.partition(".")[0] in sys.stdlib_module_names]:
        raise CheckpointError(f"it holds more than tensors, which is not loaded: {own[0]}")
    return list(names)


def _find_state(content: Any, unknown: list[str]) -> dict[str, torch.Tensor]:
    """Return the state dict in a content, however deep the known keys lead."""
    refused = f"; classes that are not loaded: {', '.join(unknown)[:SHOWN]}" if unknown else ""
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        inside = {str(k): v for k, v in content.items() if isinstance(v, Mapping) and v}
        known = [key for key in KEYS if key in inside]
        tensors = _take_tensors(content)
        if tensors and not known:
            return tensors
        states = known or [key for key, value in inside.items() if _take_tensors(value)]
        if len(states) > 1 and not known:
            raise CheckpointError(f"it holds several state dicts, {', '.join(states)[:SHOWN]}")
        content = inside.get(states[0]) if states else None
    raise CheckpointError(f"it is no state dict{refused}")


def _take_tensors(content: Mapping) -> dict[str, torch.Tensor]:
    """Return the tensors that have a name; counters and options beside them are left out."""
    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
