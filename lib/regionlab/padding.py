"""Padding before CLIP cuts out the middle square: long pictures keep more of their ends."""

from PIL import Image, ImageOps

TARGET_RATIO = 1.25  # of S4's authors


class TargetPad:
    """Pad a long picture with black until its sides have a given ratio.

    "TargetPad" of Baldrati et al. 2022 (section 4.2), which S4 follows: between leaving the
    ends of a long picture to be cut off and making it small in a square.

    Parameters
    ----------
    ratio
        Longer by shorter side that is left, at least 1; a picture below it stays as it is.

    Raises
    ------
    ValueError
        If `ratio` is below 1.
    """

    def __init__(self, ratio: float = TARGET_RATIO):
        if not ratio >= 1:
            raise ValueError(
                f"the ratio of the longer to the shorter side is 1 or more, not {ratio}"
            )
        self.ratio = ratio

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the padded picture."""
        width, height = picture.size
        if max(width, height) / min(width, height) < self.ratio:
            return picture
        side = max(width, height) / self.ratio
        across, along = (max(int((side - length) / 2), 0) for length in (width, height))
        return ImageOps.expand(picture, (across, along, across, along), fill=0)

    def __repr__(self) -> str:
        return f"TargetPad({self.ratio})"


class SquarePad(TargetPad):
    """Pad with black to a square, so that nothing is cut off."""

    def __init__(self):
        super().__init__(1.0)

    def __repr__(self) -> str:
        return "SquarePad()"


PADDINGS = {"none": None, "target": TargetPad, "square": SquarePad}


def pad_first(preprocess, padding: str):
    """Return an encoder's preprocessing with padding before it.

    Parameters
    ----------
    preprocess
        A torchvision `Compose` that takes a PIL image.
    padding
        "none", "target" (to 1.25, as S4) or "square".

    Raises
    ------
    ValueError
        If `padding` is unknown.
    """
    if padding not in PADDINGS:
        raise ValueError(f"unknown padding {padding!r}; known: {', '.join(PADDINGS)}")
    if padding == "none":
        return preprocess
    return type(preprocess)([PADDINGS[padding](), *preprocess.transforms])
