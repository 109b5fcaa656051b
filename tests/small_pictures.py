"""Small pictures of noise, for indexes that are quickly built."""

import numpy as np
from PIL import Image


def write_picture(path, seed, size=(32, 24)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
