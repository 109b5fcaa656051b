"""Draw a Toybox scene: ground, light, shadows, things, and the visible mask of each thing."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from toybox.world import COLORS, SIDE, Scene, Thing

SUPERSAMPLING = 4


def render_scene(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw the scene, the grain of its ground by `rng`, and say which pixels show which thing.

    Returns the image, (256, 256, 3) uint8 RGB, and one (256, 256) bool mask a thing, in the order
    of `scene.things`: the pixels where it is seen, so that masks never overlap.
    """
    canvas = GROUND_PAINTERS[scene.ground](rng) * _light_field(scene.light)[..., None]
    owner = np.full((SIDE, SIDE), -1)
    for number, thing in enumerate(scene.things):
        alpha, box = _thing_alpha(thing)
        _cast_shadow(canvas, alpha, box, thing, scene.light)
        x0, y0, x1, y1 = box
        patch = canvas[y0:y1, x0:x1]
        patch += alpha[..., None] * (_thing_surface(thing, alpha, box, scene.light) - patch)
        owner[y0:y1, x0:x1][alpha > 0.5] = number
    image = np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)
    return image, [owner == number for number in range(len(scene.things))]


# Outlines: rings of (n, 2) vertices in the unit disc, y down; a second ring cuts a hole


def _polar(radius, n=72, start=0.0):
    angle = start + np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart():
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], axis=1) / 16


def _crescent():
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 40)
    tip = np.sqrt(0.5)
    inner_radius = np.hypot(tip - 0.48, tip)
    start = np.arctan2(tip, tip - 0.48)
    inner = np.linspace(2 * np.pi - start, start, 40)
    arc = np.stack([0.48 + inner_radius * np.cos(inner), inner_radius * np.sin(inner)], axis=1)
    rim = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    return np.concatenate([rim, arc]) + [0.2, 0]


def _cross(arm=0.34):
    a, b = arm, 0.95
    points = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    return np.array(points + [(-x, -y) for x, y in points])


ARROW = ((0, -1), (0.85, -0.1), (0.36, -0.1), (0.36, 0.95), (-0.36, 0.95), (-0.36, -0.1),
         (-0.85, -0.1))  # fmt: skip
BOLT = ((0.3, -1), (-0.75, 0.2), (-0.16, 0.2), (-0.42, 1), (0.75, -0.32), (0.12, -0.32),
        (0.78, -1))  # fmt: skip

OUTLINES = {
    "circle": (_polar(0.92),),
    "square": (_polar(1.12, 4, np.pi / 4),),
    "triangle": (_polar(1.08, 3, -np.pi / 2) + [0, 0.18],),
    "star": (_polar(np.where(np.arange(10) % 2, 0.42, 1.0), 10, -np.pi / 2),),
    "heart": (_heart(),),
    "ring": (_polar(0.98), _polar(0.52)),
    "cross": (_cross(),),
    "crescent": (_crescent(),),
    "diamond": (np.array([(0, -1), (0.62, 0), (0, 1), (-0.62, 0)]),),
    "arrow": (np.array(ARROW),),
    "flower": (_polar(0.72 + 0.28 * np.cos(5 * np.linspace(0, 2 * np.pi, 72, endpoint=False))),),
    "bolt": (np.array(BOLT),),
}


# Things


def _thing_alpha(thing: Thing) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Cover of the thing in [0, 1] within its XYXY box, which is clipped to the scene."""
    reach = 1.15 * thing.radius
    x0, y0 = (max(int(v - reach), 0) for v in (thing.x, thing.y))
    x1, y1 = (min(int(v + reach) + 1, SIDE) for v in (thing.x, thing.y))
    scale = SUPERSAMPLING
    drawing = Image.new("L", ((x1 - x0) * scale, (y1 - y0) * scale))
    pen = ImageDraw.Draw(drawing)
    turn = _rotation(thing.angle) * thing.radius
    for ring, ink in zip(OUTLINES[thing.shape], (255, 0), strict=False):
        vertices = (ring @ turn.T + [thing.x - x0, thing.y - y0]) * scale
        pen.polygon([tuple(v) for v in vertices], fill=ink)
    alpha = np.asarray(drawing.reduce(scale), np.float32) / 255
    return alpha, (x0, y0, x1, y1)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _thing_surface(thing: Thing, alpha, box, light: float) -> np.ndarray:
    """Colour of the thing at each pixel of its box, (h, w, 3) in [0, 1]."""
    x0, y0, x1, y1 = box
    dx = np.arange(x0, x1, dtype=np.float32) + 0.5 - thing.x
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - thing.y
    (c, s), _ = _rotation(-thing.angle).astype(np.float32)
    u, v = (c * dx + s * dy) / thing.radius, (c * dy - s * dx) / thing.radius
    base = np.array(COLORS[thing.color], np.float32) / 255
    dark = TEXTURE_PAINTERS[thing.texture](u, v)[..., None]
    surface = base * (1 - 0.62 * dark)
    facing = (np.cos(light) * dx + np.sin(light) * dy) / thing.radius
    rim = np.clip(2 * alpha - 1, 0, 1)  # anti-aliased pixels darken: a thin contour
    return surface * ((1 + 0.13 * facing) * (0.55 + 0.45 * rim))[..., None]


def _cast_shadow(canvas, alpha, box, thing: Thing, light: float, strength: float = 0.45) -> None:
    """Darken the canvas beside the thing, away from the light."""
    shift = 0.16 * thing.radius + 2
    dx, dy = round(-shift * np.cos(light)), round(-shift * np.sin(light))
    blur = 3
    padded = np.pad((alpha * 255).astype(np.uint8), 2 * blur)
    soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(blur)), np.float32) / 255
    x0, y0 = box[0] - 2 * blur + dx, box[1] - 2 * blur + dy
    left, top = max(-x0, 0), max(-y0, 0)
    right = min(soft.shape[1], SIDE - x0)
    bottom = min(soft.shape[0], SIDE - y0)
    region = canvas[y0 + top : y0 + bottom, x0 + left : x0 + right]
    region *= 1 - strength * soft[top:bottom, left:right, None]


TEXTURE_PAINTERS = {  # 1 where the dark ink is, at (u, v) in units of the radius
    "plain": lambda u, v: np.zeros_like(u + v),
    "striped": lambda u, v: _wave(u + 0 * v, 0.5),
    "dotted": lambda u, v: np.clip(4 * (0.21 - _to_lattice(u, v, 0.55)) / 0.21, 0, 1),
    "checkered": lambda u, v: np.abs(_wave(u, 0.72) - _wave(v, 0.72)),
}


def _wave(t, period):
    """Return a square wave with soft flanks, 0 or 1."""
    return np.clip(0.5 + 3 * np.sin(2 * np.pi * t / period), 0, 1)


def _to_lattice(u, v, period):
    """Distance to the nearest point of a square lattice."""
    du = u - period * np.round(u / period)
    dv = v - period * np.round(v / period)
    return np.hypot(du, dv)


# Grounds: (256, 256, 3) float32 in [0, 1]

ROW = np.arange(SIDE, dtype=np.float32)[:, None]
COLUMN = np.arange(SIDE, dtype=np.float32)[None, :]


def _light_field(light: float) -> np.ndarray:
    """Brightness of the ground, from 0.86 away from the light to 1.08 towards it."""
    along = np.cos(light) * (COLUMN / SIDE - 0.5) + np.sin(light) * (ROW / SIDE - 0.5)
    return 0.97 + 0.16 * along


def _noise(rng, rows: int, columns: int) -> np.ndarray:
    """Smooth noise in [0, 1] of the scene's size, from a coarse random grid."""
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _mix(low, high, amount) -> np.ndarray:
    low, high = np.array(low, np.float32) / 255, np.array(high, np.float32) / 255
    return low + (high - low) * np.clip(amount, 0, 1)[..., None]


def _grass(rng):
    blades = 0.5 * _noise(rng, 64, 200) + 0.3 * _noise(rng, 10, 10) + 0.2 * _noise(rng, 256, 256)
    return _mix((48, 92, 30), (138, 176, 78), blades)


def _sand(rng):
    bend = 18 * _noise(rng, 5, 5)
    ripples = 0.5 + 0.5 * np.sin((ROW + bend + 0.25 * COLUMN) * 2 * np.pi / 17)
    return _mix((196, 162, 108), (236, 208, 158), 0.45 * ripples + 0.55 * _noise(rng, 256, 256))


def _water(rng):
    bend = 26 * _noise(rng, 7, 4)
    waves = 0.5 + 0.5 * np.sin((ROW + bend) * 2 * np.pi / 24)
    glitter = np.clip(3 * _noise(rng, 90, 32) - 2.1, 0, 1)
    amount = 0.6 * waves**2 + 0.25 * _noise(rng, 12, 12) + glitter
    return _mix((18, 74, 112), (96, 168, 190), amount)


def _snow(rng):
    drifts = 0.7 * _noise(rng, 7, 7) + 0.3 * _noise(rng, 128, 128)
    return _mix((196, 208, 224), (248, 250, 253), drifts)


def _brick(rng, height=22, width=46):
    course = (ROW + rng.integers(height)) // height
    along = COLUMN + width / 2 * (course % 2) + rng.integers(width)
    mortar = ((ROW + 0 * COLUMN - (course * height)) % height < 3) | (along % width < 3)
    tones = rng.random((64, 64), dtype=np.float32)
    tone = tones[course.astype(int) % 64, (along // width).astype(int) % 64]
    stone = _mix((122, 52, 40), (168, 92, 68), 0.6 * tone + 0.4 * _noise(rng, 128, 128))
    lime = _mix((176, 168, 158), (198, 190, 180), _noise(rng, 256, 256))
    return np.where(mortar[..., None], lime, stone)


def _wood(rng, width=43):
    board = (COLUMN + rng.integers(width)) // width
    seam = ((COLUMN + 0 * ROW - board * width) % width) < 2
    tone = rng.random(16, dtype=np.float32)[board.astype(int) % 16]
    grain = 0.5 + 0.5 * np.sin((COLUMN + 14 * _noise(rng, 6, 24)) * 2 * np.pi / 9)
    amount = 0.35 * tone + 0.3 * grain + 0.35 * _noise(rng, 24, 200)
    return _mix((92, 58, 32), (172, 122, 76), amount) * np.where(seam, 0.45, 1.0)[..., None]


def _tile(rng, side=37):
    shift = rng.integers(side, size=2)
    row, column = (ROW + shift[0]) // side, (COLUMN + shift[1]) // side
    grout = ((ROW + shift[0]) % side < 3) | ((COLUMN + shift[1]) % side < 3)
    amount = 0.6 * ((row + column) % 2) + 0.4 * _noise(rng, 64, 64)
    slab = _mix((150, 176, 176), (186, 206, 204), amount)
    return np.where(grout[..., None], np.float32(0.36), slab)


def _gravel(rng):
    blobs = 0.55 * _noise(rng, 52, 52) + 0.3 * _noise(rng, 110, 110) + 0.15 * _noise(rng, 256, 256)
    return _mix((52, 52, 56), (176, 172, 168), 2.2 * blobs - 0.6)


GROUND_PAINTERS = {
    "grass": _grass, "sand": _sand, "water": _water, "snow": _snow,
    "brick": _brick, "wood": _wood, "tile": _tile, "gravel": _gravel,
}  # fmt: skip
