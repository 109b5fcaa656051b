"""toyclip: the small CLIP of Toybox, an architecture that open_clip's factory is taught."""

from pathlib import Path

from regionlab.models.torchvision_cpu import import_open_clip

from regionlab.util.paths import DATA

HERE = Path(__file__).parent
CONFIG = HERE / "toyclip.json"
VOCABULARY = HERE / "toyclip_bpe.txt.gz"  # the first merges of CLIP's own: 8,192 tokens
WEIGHTS = DATA / "toybox" / "toyclip.safetensors"


def register_toyclip() -> None:
    """Make "toyclip" a model name that open_clip's factory knows."""
    open_clip = import_open_clip()
    if "toyclip" not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)


def create_toyclip(pretrained: str | Path | None = None):
    """Return (model, preprocess, tokenizer) as open_clip makes them.

    Parameters
    ----------
    pretrained
        Weights file; None for random weights.
    """
    register_toyclip()
    open_clip = import_open_clip()
    model, _, preprocess = open_clip.create_model_and_transforms(
        "toyclip", pretrained=str(pretrained) if pretrained else None
    )
    tokenizer = open_clip.get_tokenizer("toyclip", bpe_path=str(VOCABULARY))
    return model, preprocess, tokenizer
