"""Where CLIP's weights come from: a name becomes a file that has been checked.

`<architecture>/<tag>` names published weights, which open_clip downloads into `data/weights/`
where the network allows; `<architecture>/<file>` names a file of your own.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from regionlab.paths import DATA

WEIGHTS = DATA / "weights"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


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
    published
        open_clip's entry for published weights (mean, std, interpolation, quick_gelu, ...);
        empty for a file of your own.
    """

    path: Path
    sha256: str
    published: dict = field(default_factory=dict)


def find_weights(architecture: str, source: str, *, folder: Path = WEIGHTS) -> WeightsFile:
    """Return the weights that `source` names for an open_clip architecture.

    Parameters
    ----------
    architecture
        A name from `open_clip.list_models()`.
    source
        A published tag, such as "openai", or the path of a weights file.
    folder
        Where published weights are looked for, and downloaded to.

    Raises
    ------
    WeightsError
        If the tag or file is unknown, the download fails, or the file is not the published one.
    """
    import open_clip

    published = open_clip.get_pretrained_cfg(architecture, source)
    if not published:
        return _check_own_file(architecture, source)
    path = _file_of_tag(architecture, source, folder) or _download(
        architecture, source, published, folder
    )
    digest = hash_file(path)
    _check_digest(path, digest, published)
    return WeightsFile(path, digest, published)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_own_file(architecture: str, source: str) -> WeightsFile:
    path = Path(source).expanduser()
    if path.is_file():
        return WeightsFile(path, hash_file(path))
    import open_clip

    tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none published"
    raise WeightsError(
        f"no weights {source!r} for {architecture}: neither a file nor a published tag "
        f"(known tags: {tags}; 'untrained' gives random weights)"
    )


def _file_of_tag(architecture: str, tag: str, folder: Path) -> Path | None:
    """Return the file that the user has put in place for a tag."""
    for suffix in WEIGHT_SUFFIXES:
        path = folder / f"{architecture}-{tag}{suffix}"
        if path.is_file():
            return path
    return None


def _download(architecture: str, tag: str, published: dict, folder: Path) -> Path:
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(published, cache_dir=str(folder)))
    except Exception as e:  # whatever the network does, the user needs the same instructions
        hub = published.get("hf_hub", "").rstrip("/")
        sources = [f"the Hugging Face repository {hub}"] if hub else []
        sources += [published["url"]] if published.get("url") else []
        raise WeightsError(
            f"cannot download {architecture}/{tag}: {e}\n"
            f"Fetch the weights on a machine that can, from {' or '.join(sources)},\n"
            f"and put the file at {folder / f'{architecture}-{tag}'}.safetensors (or .pt, .bin)."
        ) from e


def _check_digest(path: Path, digest: str, published: dict) -> None:
    """Compare with the SHA-256 that is part of some published addresses (OpenAI's, LAION's).

    They belong to the .pt file; another format of the same weights has another sum.
    """
    url = published.get("url", "")
    in_url = re.findall(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pt$", url)
    expected = "".join(in_url[0]) if in_url else ""
    if path.suffix == ".pt" and not digest.startswith(expected):
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 is {digest}, expected {expected}.\n"
            f"It may be cut short. Delete it and fetch it again from {url}."
        )
