"""Where a baseline's weights come from: its Toybox file, one of yours, or timm's published ones.

Published weights are looked for in `data/weights/` as `<timm name>.safetensors` (or .pt, .pth,
.bin), and downloaded to there where the network allows.
"""

import re
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from timm.models import PretrainedCfg

from regionlab.models.checkpoints import CheckpointError, read_checkpoint, tell_misfit
from regionlab.util.errors import RegionlabError
from regionlab.util.files import hash_file
from regionlab.util.paths import DATA, expand

WEIGHTS = DATA / "weights"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
CONNECT_SECONDS = 10


class WeightsError(RegionlabError, RuntimeError):
    """Weights that cannot be had or are not what they should be; says what to do."""


@dataclass(frozen=True)
class WeightsFile:
    """A checked file of weights.

    Attributes
    ----------
    path
        Where it lies.
    sha256
        Of its bytes, 64 hexadecimal digits.
    settings
        What open_clip's table says of it: mean, std, interpolation, resize_mode, quick_gelu.
        For a file of your own, the preprocessing that all published weights of its
        architecture share.
    trusted
        Whether all of `sha256` is a published sum, so that even a format that may hold code
        (OpenAI's TorchScript archives) can be loaded.
    """

    path: Path
    sha256: str
    settings: dict = field(default_factory=dict)
    trusted: bool = False


def place_of_weights(name: str) -> Path:
    """Return where the weights of a model lie, or will once they are fetched.

    Parameters
    ----------
    name
        Of an encoder, a segmenter or a baseline, as `load_encoder` and the others take it.
    """
    family, _, rest = name.partition("/")
    if not rest:
        known = OFFICIAL.get(name)
        return WEIGHTS / known[0] if known else TOYBOX / f"{name}.safetensors"
    by_timm = family in ("vit", "dir")
    stem = rest if by_timm else f"{family}-{rest}"
    files = [WEIGHTS / f"{stem}{suffix}" for suffix in WEIGHT_SUFFIXES]
    if not by_timm:
        import open_clip

        published = open_clip.get_pretrained_cfg(family, rest) or {}
        files += [WEIGHTS / url.rpartition("/")[2] for url in [published.get("url", "")] if url]
        hub = published.get("hf_hub", "")
        files += filter(None, [hub and _find_in_cache(hub, WEIGHTS)])
    return next((file for file in files if file.is_file()), files[0])


def find_weights(architecture: str, source: str, *, folder: Path | None = None) -> WeightsFile:
    """Return the weights that `source` names for an open_clip architecture.

    Parameters
    ----------
    architecture
        A name from `open_clip.list_models()`.
    source
        A published tag, such as "openai", or the path of a weights file.
    folder
        Where published weights are looked for, and downloaded to; by default `data/weights/`.

    Raises
    ------
    WeightsError
        If the tag or file is unknown, the download fails, or the file is not the published one.
    """
    import open_clip

    published = open_clip.get_pretrained_cfg(architecture, source)
    if not published:
        return _find_own_file(architecture, source)
    folder = expand(folder or WEIGHTS)
    path = _file_of_tag(architecture, source, folder) or _download(
        architecture, source, published, folder
    )
    digest = hash_file(path)
    _check_digest(path, digest, published)
    return WeightsFile(path, digest, published, trusted=digest == _published_digest(published))


# A file of your own


def _find_own_file(architecture: str, source: str) -> WeightsFile:
    import open_clip

    path = Path(source).expanduser()
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not path.is_file():
        raise WeightsError(
            f"no weights {source!r} for {architecture}: neither a file nor a published tag "
            f"(known tags: {', '.join(tags) or 'none'}; 'untrained' gives random weights)"
        )
    digest = hash_file(path)
    entries = [open_clip.get_pretrained_cfg(architecture, tag) for tag in tags]
    same = [entry for entry in entries if digest == _published_digest(entry)]
    if same:
        return WeightsFile(path, digest, same[0], trusted=True)
    return WeightsFile(path, digest, _shared_preprocessing(entries))


def _shared_preprocessing(entries: list[dict]) -> dict:
    """Return the preprocessing of published weights where they agree on it, else nothing."""
    kinds = [{key: entry[key] for key in PREPROCESSING if key in entry} for entry in entries]
    return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else {}


# Published weights


def _file_of_tag(architecture: str, tag: str, folder: Path) -> Path | None:
    """Return the file that the user has put in place for a tag."""
    paths = (folder / f"{architecture}-{tag}{suffix}" for suffix in WEIGHT_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _download(architecture: str, tag: str, published: dict, folder: Path) -> Path:
    from open_clip.pretrained import download_pretrained

    hub = published.get("hf_hub", "")
    try:
        if hub and (cached := _find_in_cache(hub, folder)):
            return cached
        if hub:
            _knock_at_hub()
        return Path(download_pretrained(published, cache_dir=str(folder)))
    except Exception as e:  # whatever the network does, the user needs the same instructions
        sources = []
        if hub:
            repository, names = _hub_files(hub)
            sources.append(f"{' or '.join(names)} of the Hugging Face repository {repository}")
        if published.get("url"):
            sources.append(published["url"])
        raise WeightsError(
            f"cannot download {architecture}/{tag}: {e}\n"
            f"Fetch the weights on a machine that can, from {' or '.join(sources)},\n"
            f"and put the file at {folder / f'{architecture}-{tag}'}.safetensors (or .pt, .bin)."
        ) from e


def _hub_files(hub: str) -> tuple[str, list[str]]:
    """Return the repository and file names that open_clip reads an entry of its table as."""
    repository, _, name = hub.rpartition("/")
    if not name:
        return repository, ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return repository, list(dict.fromkeys([str(Path(name).with_suffix(".safetensors")), name]))


def _find_in_cache(hub: str, folder: Path) -> Path | None:
    """Return the file of an earlier download: without this, each load would ask the network."""
    from huggingface_hub import try_to_load_from_cache

    repository, names = _hub_files(hub)
    found = [try_to_load_from_cache(repository, name, cache_dir=folder) for name in names]
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _knock_at_hub() -> None:
    """Raise at once where there is no network; the hub's own requests retry for a minute."""
    from huggingface_hub import constants, get_session

    get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)


def _published_digest(published: dict) -> str:
    """Return the SHA-256, or its first 8 digits, that some published addresses hold; else ""."""
    found = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pt$", published.get("url", ""))
    return (found[1] or found[2]) if found else ""


def _check_digest(path: Path, digest: str, published: dict) -> None:
    """Compare with the published sum, where there is one for this format of the weights."""
    blob = path.resolve().name  # the hub's cache names what it keeps by SHA-256
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        expected = blob
    else:
        expected = _published_digest(published) if path.suffix == ".pt" else ""
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 is {digest}, expected {expected}.\n"
            f"It may be cut short. Delete it and fetch it again."
        )


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
        return _find_own_file_sam_weights(architecture, source)
    if architecture == "toysam":
        return _find_toysam()
    folder = expand(folder or WEIGHTS)
    name, expected = OFFICIAL[architecture]
    path = folder / name
    if not path.is_file():
        _download_sam_weights(architecture, f"{ADDRESS}/{name}", path, expected)
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


def _find_own_file_sam_weights(architecture: str, source: str) -> WeightsFile:
    path = Path(source).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights {source!r} for {architecture}: there is no such file "
            f"('{architecture}/untrained' gives random weights)"
        )
    return WeightsFile(path, hash_file(path))


def _find_toysam() -> WeightsFile:
    from regionlab.models import sam  # late: it loads segment_anything

    if not sam.WEIGHTS.exists():
        raise WeightsError(
            f"toysam's weights are not at {sam.WEIGHTS}: restore the file or run `make train`"
        )
    return WeightsFile(sam.WEIGHTS, hash_file(sam.WEIGHTS))


def _download_sam_weights(architecture: str, address: str, path: Path, expected: str) -> None:
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
    folder = expand(folder or WEIGHTS)
    full_name = f"{published.architecture}.{published.tag}" if published.tag else name
    paths = (folder / f"{full_name}{suffix}" for suffix in WEIGHT_SUFFIXES)
    path = next((path for path in paths if path.is_file()), None)
    path = path or _download_files(full_name, published, folder)
    digest, kept_as = hash_file(path), path.resolve().name
    # The hub's cache names what it keeps by SHA-256.
    if re.fullmatch("[0-9a-f]{64}", kept_as) and kept_as != digest:
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 is {digest}, expected {kept_as}.\n"
            f"It may be cut short. Delete it and fetch it again."
        )
    return WeightsFile(path, digest)


def _download_files(name: str, published: PretrainedCfg, folder: Path) -> Path:
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
