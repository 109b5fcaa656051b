"""Where a baseline's weights come from: its Toybox file, one of yours, or timm's published ones.

Published weights are looked for in `data/weights/` as `<timm name>.safetensors` (or .pt, .pth,
.bin), and downloaded to there where the network allows.
"""

import re
from pathlib import Path

import timm
from timm.models import PretrainedCfg

from regionlab import weights
from regionlab.paths import DATA, expand
from regionlab.weights import CONNECT_SECONDS, WEIGHT_SUFFIXES, WeightsError, WeightsFile, hash_file

TOYBOX = DATA / "toybox"
HUB_FILE = "model.safetensors"  # by which timm publishes each of its models


def find_own_file(architecture: str, source: str) -> WeightsFile:
    """Return the file of weights at a path.

    Raises
    ------
    WeightsError
        If there is none.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights {source!r} for {architecture}: there is no such file "
            f"('{architecture}/untrained' gives random weights)"
        )
    return WeightsFile(path, hash_file(path))


def find_toybox_file(name: str) -> WeightsFile:
    """Return the weights of a Toybox model.

    Raises
    ------
    WeightsError
        If they are not there.
    """
    path = TOYBOX / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"{name}'s weights are not at {path}: restore the file or run `make train`"
        )
    return WeightsFile(path, hash_file(path))


def find_timm_weights(name: str, *, folder: Path | None = None) -> WeightsFile:
    """Return the published weights of a timm model.

    Parameters
    ----------
    name
        Of the model, with the tag of its weights or without: "vit_base_patch16_224.dino".
    folder
        Where they are looked for, and downloaded to; by default `data/weights/`.

    Raises
    ------
    WeightsError
        If none are published, the download fails, or what was downloaded has changed.
    """
    published = timm.get_pretrained_cfg(name)
    if not published or not published.hf_hub_id:
        raise WeightsError(f"timm publishes no weights of {name}: say {name}/<a file>")
    folder = expand(folder or weights.WEIGHTS)
    full_name = f"{published.architecture}.{published.tag}" if published.tag else name
    paths = (folder / f"{full_name}{suffix}" for suffix in WEIGHT_SUFFIXES)
    path = next((path for path in paths if path.is_file()), None)
    path = path or _download(full_name, published, folder)
    digest, kept_as = hash_file(path), path.resolve().name
    # The hub's cache names what it keeps by SHA-256.
    if re.fullmatch("[0-9a-f]{64}", kept_as) and kept_as != digest:
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 is {digest}, expected {kept_as}.\n"
            f"It may be cut short. Delete it and fetch it again."
        )
    return WeightsFile(path, digest)


def _download(name: str, published: PretrainedCfg, folder: Path) -> Path:
    from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache

    wanted = {"repo_id": published.hf_hub_id, "filename": HUB_FILE, "cache_dir": folder}
    try:
        if isinstance(kept := try_to_load_from_cache(**wanted), str):
            return Path(kept)  # without asking the network
        # The hub's own requests retry for a minute where there is no network.
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)
        return Path(hf_hub_download(**wanted))
    except Exception as e:  # whatever the network does, the user needs the same instructions
        raise WeightsError(
            f"cannot download {name}: {e}\n"
            f"Fetch {HUB_FILE} of the Hugging Face repository {published.hf_hub_id} on a machine "
            f"that can, and put it at {folder / name}.safetensors (or .pt, .pth, .bin)."
        ) from e
