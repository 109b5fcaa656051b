"""Where CLIP's weights come from: a name becomes a file that has been checked.

`<architecture>/<tag>` names published weights, which open_clip downloads into `data/weights/`
where the network allows; `<architecture>/<file>` names a file of your own.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from regionlab.paths import DATA, expand

WEIGHTS = DATA / "weights"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
CONNECT_SECONDS = 10


class WeightsError(RuntimeError):
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


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
