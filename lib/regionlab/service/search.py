"""From a request to the images found: parts become vectors, vectors a ranking and an answer."""

import asyncio
import time
from base64 import b64encode
from typing import Any

import numpy as np
from fastapi import HTTPException

from regionlab.data.masks import mask_to_box, mask_to_rle
from regionlab.data.prompts import Text, Whole
from regionlab.search.feedback import FeedbackSession
from regionlab.search.query import Part, Query
from regionlab.search.regions import RegionRanking, search_regions
from regionlab.search.scoring import TERMS, Rol
from regionlab.service.forms import AnyPrompt, ImageForm, SearchForm
from regionlab.service.inference import ModelRunner
from regionlab.service.sessions import CachedRegion, Picture, Visitor
from regionlab.viz.images import encode_mask, object_color
from regionlab.viz.picker import MASK_SIDE

WHOLE_BOX = np.array([0.0, 0.0, 1.0, 1.0])


async def answer_masks(engine: ModelRunner, visitor: Visitor, form: ImageForm) -> dict[str, Any]:
    """Return the mask of each prompt, as `answers.MaskAnswer` has it, or why there is none.

    HTTPException 422 without an image, or as of `ModelRunner.open_picture`.
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


def _describe_mask(found: list[CachedRegion] | str, color: str) -> dict[str, Any]:
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


class _Stopwatch:
    """Seconds of the stages of a request, one after another."""

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now

    def describe(self) -> dict[str, float]:
        total = self._last - self.started
        return {k: round(v, 5) for k, v in (self.seconds | {"total": total}).items()}


async def answer_search(engine: ModelRunner, visitor: Visitor, form: SearchForm) -> dict[str, Any]:
    """Return what was found, as `answers.SearchAnswer` has it.

    HTTPException 422 if there is nothing to look for, or it cannot be looked for so, or as of
    `ModelRunner.open_picture`.
    """
    watch = _Stopwatch()
    async with engine.open_picture(visitor, form.image, form.image_id) as picture:
        watch.lap("read")
        wanted = await _find_parts(engine, visitor, picture, form)
        watch.lap("segment")
        parts = await _encode_parts(engine, picture, wanted, form)
        watch.lap("encode")
        target = _choose_target(engine, form, [found for _, found in wanted])
        judged = _find_judged(engine, form)
        ranking, parts = await engine.run(_rank, engine, parts, form, target, picture, judged)
        watch.lap("search")
        results = await engine.run(_describe_results, engine, ranking, parts)
        watch.lap("describe")
    return {
        "image_id": picture and picture.image_id,
        "parts": [_describe_part(part, picture) for part in parts],
        "target": target,
        "terms": TERMS,
        "judged": len(dict(judged)),
        "results": results,
        "seconds": watch.describe(),
    }


# Parts

Wanted = list[tuple[AnyPrompt, CachedRegion | None]]  # a prompt, and a region that it means


async def _find_parts(
    engine: ModelRunner, visitor: Visitor, picture: Picture | None, form: SearchForm
) -> Wanted:
    """Return each prompt with its region; without one for words alone and whole images."""
    wanted: Wanted = []
    for number, asked in enumerate(form.prompts):
        prompt = asked.to_prompt()
        alone = picture is None and isinstance(prompt, Text)
        if picture is None and not alone:
            raise HTTPException(422, f"prompt {number} needs an image")
        if alone or isinstance(prompt, Whole):
            wanted.append((asked, None))
            continue
        answer = await engine.find_regions(visitor, picture, prompt)
        if isinstance(answer, str):
            raise HTTPException(422, f"prompt {number}: {answer}")
        wanted += [(asked, found) for found in answer]
    return wanted


async def _encode_parts(
    engine: ModelRunner, picture: Picture | None, wanted: Wanted, form: SearchForm
) -> list[Part]:
    parts = [_encode_part(engine, picture, *one) for one in wanted]
    if picture is not None and not form.prompts:
        parts.append(_encode_whole(engine, picture))
    if form.words is not None:
        parts.append(_encode_words(engine, form.words, form.words_weight))
    if not parts:
        raise HTTPException(422, "nothing to look for: send an image, an image_id, or words")
    return list(await asyncio.gather(*parts))


async def _encode_part(
    engine: ModelRunner, picture: Picture | None, asked: AnyPrompt, found: CachedRegion | None
) -> Part:
    if found is not None:
        height, width = picture.size
        box = found.box / (width, height, width, height)
        vector = await engine.encode_region(picture, found)
        label = asked.label or getattr(asked, "words", "") or asked.kind
        made = {"space": engine.encoder.space, "encoding": engine.encoding}
        return Part(vector, box, asked.weight, label, **made)
    if asked.kind == "text":
        return await _encode_words(engine, asked.words, asked.weight)
    return await _encode_whole(engine, picture, weight=asked.weight, label=asked.label)


async def _encode_whole(
    engine: ModelRunner, picture: Picture, *, weight: float = 1.0, label: str = ""
) -> Part:
    vector = await engine.encode_picture(picture)
    space = engine.encoder.space
    return Part(vector, WHOLE_BOX, weight, label or "whole image", space=space)


async def _encode_words(engine: ModelRunner, words: str, weight: float) -> Part:
    space = engine.encoder.space
    return Part(await engine.encode_words(words), None, weight, words, space=space)


# Ranking


def _choose_target(engine: ModelRunner, form: SearchForm, found: list[CachedRegion | None]) -> str:
    """Return what the parts are compared with: as asked, else regions with regions."""
    has_regions = engine.index.regions is not None
    target = form.target
    if target is None:
        target = "regions" if has_regions and any(found) else "images"
    needs = target != "images" or (form.beta > 0 and form.rol_region != "whole")
    if needs and not has_regions:
        raise HTTPException(422, "this collection was indexed without regions: target=images")
    return target


Judged = list[tuple[str, bool]]  # ids of images, and whether they are liked


def _find_judged(engine: ModelRunner, form: SearchForm) -> Judged:
    liked, disliked = (
        [engine.gallery.find_judged(name) for name in names]
        for names in (form.liked, form.disliked)
    )
    return [(name, True) for name in liked] + [(name, False) for name in disliked]


def _rank(
    engine: ModelRunner,
    parts: list[Part],
    form: SearchForm,
    target: str,
    picture: Picture | None,
    judged: Judged,
) -> tuple[RegionRanking, tuple[Part, ...]]:
    """Return the ranking, and the parts as they were searched for: feedback moves them."""
    own = picture.row if picture is not None and form.exclude_self else -1
    options = {"target": target, "aggregation": form.aggregation}
    options |= {"image_weight": form.image_weight, "where": form.where}
    try:
        options["rol"] = Rol(form.alpha, form.beta, form.rol_region)
        query = Query(tuple(parts))
        if judged:
            said = {"exclude": own, "method": form.feedback, "history": judged}
            query = FeedbackSession(engine.index, query, options, **said).refine_query()
        ranking = search_regions(engine.index, query, k=form.k, exclude=[own], **options)
    except ValueError as e:  # such as a query of unwanted parts only
        raise HTTPException(422, str(e)) from e
    return ranking, query.parts


# Answer


def _describe_part(part: Part, picture: Picture | None) -> dict[str, Any]:
    box = None
    if part.box is not None:
        height, width = picture.size
        box = tuple(part.box * (width, height, width, height))
    return {"label": part.label, "weight": part.weight, "box": box}


def _describe_results(
    engine: ModelRunner, ranking: RegionRanking, parts: tuple[Part, ...]
) -> list[dict[str, Any]]:
    rows = ranking.rows[0][ranking.rows[0] >= 0]
    return [
        engine.gallery.describe(row)
        | {
            "rank": place + 1,
            "score": ranking.scores[0, place],
            "terms": {name: values[0, place] for name, values in ranking.terms.items()},
            "regions": [
                _describe_match(engine, number, part, region)
                for number, (part, region) in enumerate(
                    zip(parts, ranking.regions[0, place], strict=False)
                )
                if region >= 0
            ],
        }
        for place, row in enumerate(rows)
    ]


def _describe_match(engine: ModelRunner, number: int, part: Part, region: int) -> dict[str, Any]:
    similarity = float(part.vector @ engine.index.region_vectors[region])
    return {"part": number, "similarity": similarity} | engine.gallery.describe_region(region)
