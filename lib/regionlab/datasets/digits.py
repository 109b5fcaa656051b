"""The handwritten digits that scikit-learn brings along: no download, no files."""

import numpy as np

from regionlab.datasets.labelled import LabelledImages, check_split, gray_to_rgb

# The file comes in 14 runs of about 130 digits, a writer each (scikit-learn's course, "Sample
# grouping"); here the last four begin.
FIRST_TEST = 1287


def load_digits(split: str = "train") -> LabelledImages:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 pixels.

    "train" is the first 1,287, "test" the last 510. The file goes by writer, so the hands of
    the test digits are not in training; a draw at random would mix them.

    Returns
    -------
    LabelledImages
        (8, 8, 3) images, the three channels alike, the 17 levels of ink spread over 0 to 255.
        Labels are "0" to "9".

    Raises
    ------
    ValueError
        If the split is neither "train" nor "test".
    """
    from sklearn import datasets  # late: a second to import

    check_split(split)
    digits = datasets.load_digits()
    part = slice(FIRST_TEST) if split == "train" else slice(FIRST_TEST, None)
    ink = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
    return LabelledImages(gray_to_rgb(ink), digits.target[part].astype(str), "digits", split)
