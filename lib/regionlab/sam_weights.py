"""Where SAM's weights come from: a name becomes a file that has been checked.

`vit_b`, `vit_l` and `vit_h` name the official checkpoints, looked for in `data/weights/` under
the names they are published by and downloaded where the network allows; `<name>/<file>` names
a file of your own.
"""

import urllib.request
from pathlib import Path

import torch

from regionlab import weights
from regionlab.checkpoints import CheckpointError, read_checkpoint, tell_misfit
from regionlab.paths import expand
from regionlab.toybox import toysam
from regionlab.weights import CONNECT_SECONDS, WeightsError, WeightsFile, hash_file

ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything"
# File name and SHA-256. The six digits in the names are of the MD5.
OFFICIAL = {
    "vit_b": (
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": (
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": (
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def find_sam_weights(
    architecture: str, source: str = "", *, folder: Path | None = None
) -> WeightsFile:
    """Return the weights of a SAM.

    Parameters
    ----------
    architecture
        "toysam", "vit_b", "vit_l" or "vit_h".
    source
        The path of a file; "" for toysam's own, or the official checkpoint.
    folder
        Where official checkpoints are looked for, and downloaded to; by default
        `data/weights/`.

    Raises
    ------
    WeightsError
        If there is no such file, the download fails, or the file is not the official one.
    """
    if source:
        return _find_own_file(architecture, source)
    if architecture == "toysam":
        return _find_toysam()
    folder = expand(folder or weights.WEIGHTS)
    name, expected = OFFICIAL[architecture]
    path = folder / name
    if not path.is_file():
        _download(architecture, f"{ADDRESS}/{name}", path, expected)
    digest = hash_file(path)
    if digest != expected:
        raise WeightsError(
            f"{path} is not the official file: its SHA-256 is {digest}, expected {expected}.\n"
            f"It may be cut short. Delete it and fetch it again; weights of your own are "
            f"{architecture}/<file>."
        )
    return WeightsFile(path, digest)


def read_sam_weights(weights_file: WeightsFile) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint by name, as float32 on the CPU.

    Whatever a training script has put around them, see `read_checkpoint`; code in a file is
    never run.

    Raises
    ------
    WeightsError
        If the file is damaged, holds something else, or numbers that are not finite.
    """
    path = weights_file.path
    try:
        state = {name: tensor.float() for name, tensor in read_checkpoint(path).items()}
    except CheckpointError as e:
        raise damaged(weights_file, str(e)) from e
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise damaged(weights_file, f"{broken[0]} holds numbers that are not finite")
    return state


def damaged(weights_file: WeightsFile, reason: str) -> WeightsError:
    """Return the error for weights that cannot be loaded: names file, SHA-256 and reason."""
    return WeightsError(
        f"{weights_file.path} (SHA-256 {weights_file.sha256}) cannot be loaded: {reason}"
    )


def misfit(weights_file: WeightsFile, architecture: str, error: Exception) -> WeightsError:
    """Return the error for weights that a model refuses; `error` is what it said."""
    return damaged(
        weights_file,
        f"it is incomplete or of another architecture than {architecture}: {tell_misfit(error)}",
    )


def _find_own_file(architecture: str, source: str) -> WeightsFile:
    path = Path(source).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights {source!r} for {architecture}: there is no such file "
            f"('{architecture}/untrained' gives random weights)"
        )
    return WeightsFile(path, hash_file(path))


def _find_toysam() -> WeightsFile:
    if not toysam.WEIGHTS.exists():
        raise WeightsError(
            f"toysam's weights are not at {toysam.WEIGHTS}: restore the file or run `make train`"
        )
    return WeightsFile(toysam.WEIGHTS, hash_file(toysam.WEIGHTS))


def _download(architecture: str, address: str, path: Path, expected: str) -> None:
    """Download to a file beside it, check the sum, and only then put it in place."""
    try:
        # Where there is no network, say so at once: the download itself waits for ever.
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), hash_prefix=expected)
    except Exception as e:  # whatever the network does, the user needs the same instructions
        raise WeightsError(
            f"cannot download {architecture}: {_first_line(e)}\n"
            f"Fetch {address} on a machine that can, and put the file at {path}."
        ) from e


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
