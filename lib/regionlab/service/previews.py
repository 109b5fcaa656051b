"""Masks of prompts, as the page shows them while somebody is drawing."""

from base64 import b64encode
from typing import Any

import numpy as np
from fastapi import HTTPException

from regionlab.region_figures import object_color
from regionlab.rle import mask_to_rle
from regionlab.service.engine import Engine
from regionlab.service.schemas import ImageForm
from regionlab.service.visitors import Found, Visitor
from regionlab.simulation import mask_to_box
from regionlab.widgets.picker import MASK_SIDE
from regionlab.widgets.pictures import encode_mask


async def answer_masks(engine: Engine, visitor: Visitor, form: ImageForm) -> dict[str, Any]:
    """Return the mask of each prompt, as `schemas.MaskAnswer` has it.

    A prompt that finds nothing says why, and keeps the others from nothing.

    Raises
    ------
    HTTPException
        422 without an image; as `Engine.open_picture` does.
    """
    async with engine.open_picture(visitor, form.image, form.image_id) as picture:
        if picture is None:
            raise HTTPException(422, "masks need an image or an image_id")
        masks = []
        for number, asked in enumerate(form.prompts):
            found = await engine.find_regions(visitor, picture, asked.to_prompt())
            color = asked.color or object_color(number)
            masks.append(await engine.run(_describe_mask, found, color))
    height, width = picture.size
    return {"image_id": picture.image_id, "width": width, "height": height, "masks": masks}


def _describe_mask(found: list[Found] | str, color: str) -> dict[str, Any]:
    """Return what a prompt became, as `schemas.Mask` has it; several regions as one mask."""
    if isinstance(found, str):
        return {"error": found}
    mask = np.logical_or.reduce([one.mask for one in found])
    return {
        "quality": min(one.quality for one in found),
        "area": int(mask.sum()),
        "box": tuple(mask_to_box(mask)),
        "rle": mask_to_rle(mask),
        "png": b64encode(encode_mask(mask, color, MASK_SIDE)).decode(),
    }
