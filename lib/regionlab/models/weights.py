"""Weights: where those of a model lie, how they are fetched and checked, and what a file holds."""

import argparse
import datetime
import pathlib
import pickle
import re
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionlab.util.errors import RegionlabError
from regionlab.util.files import hash_file
from regionlab.util.paths import DATA, expand

if TYPE_CHECKING:
    import torch

WEIGHTS = DATA / "weights"  # published ones: put there, or downloaded to there
TOYBOX = DATA / "toybox"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CONNECT_SECONDS = 10

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


class WeightsError(RegionlabError, RuntimeError):
    """Weights that cannot be had or are not what they should be; says what to do."""


class CheckpointError(RegionlabError, ValueError):
    """A file without weights that can be read; says why."""


@dataclass(frozen=True)
class WeightsFile:
    """A checked file of weights.

    Attributes
    ----------
    path, sha256 : Where it lies, and the SHA-256 of its bytes, 64 hexadecimal digits.
    settings : What open_clip's table says of it: mean, std, interpolation, resize_mode, quick_gelu.
        For a file of your own, the preprocessing that all published weights of its architecture
        share.
    trusted : Whether all of `sha256` is a published sum, so that even a format that may hold code
        (OpenAI's TorchScript archives) can be loaded.
    """

    path: Path
    sha256: str
    settings: dict = field(default_factory=dict)
    trusted: bool = False


@dataclass(frozen=True)
class Published:
    """Weights that somebody publishes.

    Attributes
    ----------
    name : Of the model, for errors.
    stem, suffixes : As which file names in `WEIGHTS` they are looked for.
    url : Where they can be fetched, unless from `hub`.
    hub, files
        A Hugging Face repository, and the names of its file, the first that is there being taken.
    sha256 : Of the file at `url`: all of its digits, the first ones, or none.
    """

    name: str
    stem: str
    suffixes: tuple[str, ...] = WEIGHT_SUFFIXES
    url: str = ""
    hub: str = ""
    files: tuple[str, ...] = ()
    sha256: str = ""

    def place(self, folder: Path | None = None) -> Path:
        """Return where the file lies, or else would be looked for first."""
        folder = expand(folder or WEIGHTS)
        paths = [folder / f"{self.stem}{suffix}" for suffix in self.suffixes]
        places = [*paths, folder / self.url.rpartition("/")[2], *self._cached(folder)]
        return next((path for path in places if path.is_file()), places[0])

    def find(self, folder: Path | None = None) -> WeightsFile:
        """Return the file, downloaded where it is not there yet.

        Raises
        ------
        WeightsError : If the download fails, or the file is not the published one.
        """
        folder = expand(folder or WEIGHTS)
        path = self.place(folder)
        path = path if path.is_file() else self._download(folder)
        digest, kept_as = hash_file(path), path.resolve().name
        # The hub's cache names what it keeps by SHA-256.
        by_hub = re.fullmatch("[0-9a-f]{64}", kept_as)
        expected = kept_as if by_hub else self.sha256 if path.suffix == _suffix(self.url) else ""
        if not digest.startswith(expected):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 is {digest}, expected {expected}.\n"
                "It may be cut short. Delete it and fetch it again; weights of your own are "
                "<name>/<file>."
            )
        return WeightsFile(path, digest)

    def _cached(self, folder: Path) -> list[Path]:
        """Return what the hub's cache holds: without this, each load would ask the network."""
        if not self.hub:
            return []
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self.hub, file, cache_dir=folder) for file in self.files)
        return [Path(path) for path in found if isinstance(path, str)]

    def _download(self, folder: Path) -> Path:
        try:
            return self._fetch_from_hub(folder) if self.hub else self._fetch_from_url(folder)
        except Exception as e:  # whatever the network does, the user needs the same instructions
            files = f"{' or '.join(self.files)} of the Hugging Face repository {self.hub}"
            sources = " or ".join(filter(None, [self.hub and files, self.url]))
            first, *others = self.suffixes
            or_so = f" (or {', '.join(others)})" if others else ""
            raise WeightsError(
                f"cannot download {self.name}: {str(e).strip().partition(chr(10))[0]}\n"
                f"Fetch {sources} on a machine that can,\n"
                f"and put the file at {folder / self.stem}{first}{or_so}."
            ) from e

    def _fetch_from_hub(self, folder: Path) -> Path:
        from huggingface_hub import constants, get_session, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        # The hub's own requests retry for a minute where there is no network.
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)
        *others, last = self.files
        for file in others:
            with suppress(EntryNotFoundError):
                return Path(hf_hub_download(self.hub, file, cache_dir=folder))
        return Path(hf_hub_download(self.hub, last, cache_dir=folder))

    def _fetch_from_url(self, folder: Path) -> Path:
        import torch

        # Where there is no network, say so at once: the download itself waits for ever.
        request = urllib.request.Request(self.url, method="HEAD")
        urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.url.rpartition("/")[2]
        torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256 or None)
        return path


def _suffix(url: str) -> str:
    return Path(url).suffix


def find_own_file(architecture: str, source: str, *, tags: list[str] | None = None) -> WeightsFile:
    """Return the file of weights at a path; WeightsError, with the published tags, if none is."""
    path = Path(source).expanduser()
    if not path.is_file():
        known = (
            "" if tags is None else f" or published tag; known tags: {', '.join(tags) or 'none'}"
        )
        raise WeightsError(
            f"no weights {source!r} for {architecture}: there is no such file{known} "
            f"('{architecture}/untrained' gives random weights)"
        )
    return WeightsFile(path, hash_file(path))


def find_toybox_file(name: str) -> WeightsFile:
    """Return the weights of a Toybox model; WeightsError if they are not there."""
    path = TOYBOX / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"{name}'s weights are not at {path}: restore the file or run `make train`"
        )
    return WeightsFile(path, hash_file(path))


def read_weights(weights_file: WeightsFile) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a checkpoint by name, as float32 on the CPU, see `read_checkpoint`.

    Raises
    ------
    WeightsError : If the file is damaged, holds something else, or numbers that are not finite.
    """
    import torch

    path = weights_file.path
    try:
        state = {name: tensor.float() for name, tensor in read_checkpoint(path).items()}
    except CheckpointError as e:
        raise damaged(weights_file, str(e)) from e
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise damaged(weights_file, f"{broken[0]} holds numbers that are not finite")
    return state


def damaged(weights_file: WeightsFile, reason: str, architecture: str = "") -> WeightsError:
    """Return the error for weights that cannot be loaded: names file, SHA-256 and reason."""
    what = f" as {architecture}" if architecture else ""
    return WeightsError(
        f"{weights_file.path} (SHA-256 {weights_file.sha256}) cannot be loaded{what}: {reason}"
    )


def misfit(weights_file: WeightsFile, architecture: str, error: Exception) -> WeightsError:
    """Return the error for weights that a model refuses; `error` is what it said."""
    return damaged(
        weights_file,
        f"it is incomplete or of another architecture than {architecture}: {tell_misfit(error)}",
    )


# What a file holds


class Unknown:
    """What stands for an object of a class that is not loaded."""

    def __new__(cls, *_: Any, **__: Any) -> "Unknown":
        """Take anything, do nothing."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take anything, do nothing."""

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


def read_checkpoint(path: Path) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a checkpoint by name, on the CPU, without wrappers and prefixes.

    State dicts lie under a key, beside options and optimizers, and their names have the prefixes
    of what the model was wrapped in. No code in a file is ever run: objects of unknown classes
    become empty ones, and what calls Python's own functions is refused.

    Parameters
    ----------
    path : A `.safetensors` file, or what `torch.save` made of a state dict, alone or in a dict
        under one of `KEYS` or as the only one.

    Raises
    ------
    CheckpointError : If the file is damaged, holds no state dict or several, or calls functions.
    """
    content, unknown = _read_content(path)
    return strip_names(_find_state(content, unknown))


def strip_names(state: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
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
    error : Of `load_state_dict`, or of a conversion that missed a name.
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
    import torch

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
    CheckpointError : If one is of Python's own library, as those are by which files run code.
    """
    import torch

    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # damaged or of an older form: reading it says what is wrong
        return []
    if own := [n for n in names if n.partition(".")[0] in sys.stdlib_module_names]:
        raise CheckpointError(f"it holds more than tensors, which is not loaded: {own[0]}")
    return list(names)


def _find_state(content: Any, unknown: list[str]) -> dict[str, "torch.Tensor"]:
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


def _take_tensors(content: Mapping) -> dict[str, "torch.Tensor"]:
    """Return the tensors that have a name; counters and options beside them are left out."""
    import torch

    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
