"""Product pictures of the generated shop: flat art on a light ground with a soft shadow, drawn with Pillow.

A picture is drawn twice as large as it is stored and halved at the end, which smooths every edge. The layers:
`paint` (colours), `clothes` (where the item's own colour and pattern go), `mask` (where the object is) and
`shade` (light and folds, multiplied in at the end, so that a fold shows on every pattern). `demo_fashion` and
`demo_appliances` draw the objects on these layers.
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from smar.demo.shop_items import COLOURS

SIDE = 160
"""Side of a finished picture, in pixels."""
_BIG = 2 * SIDE
_TILE = _BIG + 80  # patterns are cut from a larger sheet at a random offset

Colour = tuple[int, int, int]
Point = tuple[float, float]
Path = tuple[tuple[float, ...], ...]
"""Points (x, y), or (cx, cy, x, y): a quadratic curve to (x, y) bent towards (cx, cy). -1..1, y goes down."""


def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with `share` of `other` mixed in."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


@lru_cache(maxsize=512)
def flatten(path: Path, mirror: bool = True) -> tuple[Point, ...]:
    """Turn a path into points; `mirror` adds its reflection at x = 0 and so closes a symmetric outline."""
    points: list[Point] = []
    for step in path:
        if len(step) == 2:
            points.append((step[0], step[1]))
            continue
        (x0, y0), (cx, cy, x1, y1) = points[-1], step
        for t in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0):
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            points.append((a * x0 + b * cx + c * x1, a * y0 + b * cy + c * y1))
    if mirror:
        points += [(-x, y) for x, y in reversed(points)]
    return tuple(points)


class Canvas:
    """The layers of one picture, with the object's jittered place, size and tilt. Coordinates are -1..1."""

    def __init__(self, rng: np.random.Generator, ground: Colour) -> None:
        self.rng = rng
        self.paint = Image.new("RGB", (_BIG, _BIG), ground)
        self.mask = Image.new("L", (_BIG, _BIG), 0)
        self.shade = _light(int(rng.integers(3))).copy()
        self.clothes = Image.new("L", (_BIG, _BIG), 0)
        self._paint, self._mask = ImageDraw.Draw(self.paint), ImageDraw.Draw(self.mask)
        self._shade, self._clothes = ImageDraw.Draw(self.shade), ImageDraw.Draw(self.clothes)
        size = _BIG / 2 * 0.84 * rng.uniform(0.9, 1.05)
        turn = math.radians(rng.normal(0, 2.0))
        self._scale = size
        self._cos, self._sin = size * math.cos(turn), size * math.sin(turn)
        self._x, self._y = _BIG / 2 + rng.normal(0, 4), _BIG / 2 + rng.normal(0, 4)

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Unit coordinates -> pixels of the large picture."""
        cos, sin, left, top = self._cos, self._sin, self._x, self._y
        return [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in points]

    def cloth(self, path: Path, mirror: bool = True) -> None:
        """Add an outline to the part that `dye` will colour."""
        points = self.place(flatten(path, mirror))
        self._clothes.polygon(points, fill=255)
        self._mask.polygon(points, fill=255)
        self._shade.line([*points, points[0]], fill=190, width=3)

    def dye(self, colour: str, pattern: str) -> None:
        """Fill the `cloth` outlines with a colour's pattern."""
        left, top = (int(v) for v in self.rng.integers(0, _TILE - _BIG, size=2))
        self.paint.paste(sheet(colour, pattern).crop((left, top, left + _BIG, top + _BIG)), mask=self.clothes)

    def part(self, path: Path, colour: Colour, mirror: bool = True, edge: int = 190) -> None:
        """A part of one colour (buttons, soles, everything of Not-fashion); `edge` is the outline's shade."""
        points = self.place(flatten(path, mirror))
        self._mask.polygon(points, fill=255)
        self._paint.polygon(points, fill=colour)
        if edge < 255:
            self._shade.line([*points, points[0]], fill=edge, width=2)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        ((px, py),) = self.place([(x, y)])
        box = (
            px - radius * self._scale,
            py - radius * self._scale,
            px + radius * self._scale,
            py + radius * self._scale,
        )
        self._mask.ellipse(box, fill=255)
        self._paint.ellipse(box, fill=colour)

    def tube(self, path: Path, colour: Colour, width: float, mirror: bool = False) -> None:
        """A thick line: handles, straps, cords."""
        points, pixels = self.place(flatten(path, mirror)), round(width * self._scale)
        self._mask.line(points, fill=255, width=pixels, joint="curve")
        self._paint.line(points, fill=colour, width=pixels, joint="curve")

    def fold(self, path: Path, depth: int = 60, width: int = 3, mirror: bool = False) -> None:
        """A dark line in the light layer: seams, folds, gaps."""
        self._shade.line(self.place(flatten(path, mirror)), fill=255 - depth, width=width, joint="curve")

    def dim(self, path: Path, depth: int = 30, mirror: bool = True) -> None:
        """A darker area in the light layer: insides, undersides."""
        self._shade.polygon(self.place(flatten(path, mirror)), fill=255 - depth)

    def jpeg(self) -> bytes:
        """Put the object on its ground and encode the picture (RGB, `SIDE` x `SIDE`)."""
        lit = ImageChops.multiply(self.paint, Image.merge("RGB", (self.shade,) * 3)).reduce(2)
        mask = self.mask.reduce(2)
        tone = int(self.rng.integers(234, 246))
        warmth = int(self.rng.integers(-3, 4))
        picture = Image.new("RGB", (SIDE, SIDE), (tone + warmth, tone, tone - warmth))
        soft = mask.reduce(4).filter(ImageFilter.BoxBlur(2)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        shadow = Image.new("L", (SIDE, SIDE), 0)
        shadow.paste(soft.point(_SHADOW), (3, 6))
        picture.paste((84, 86, 100), mask=shadow)
        picture.paste(lit, mask=mask)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=88)
        return out.getvalue()


_SHADOW = [round(value * 0.34) for value in range(256)]


@lru_cache(maxsize=8)
def _light(kind: int) -> Image.Image:
    """Soft light from the upper left, the front or the upper right: an L image of 222..255."""
    y, x = np.mgrid[0:_BIG, 0:_BIG] / _BIG
    far = np.hypot(x - (0.3, 0.5, 0.7)[kind], y - 0.25)
    return Image.fromarray((255 - 33 * np.clip(far, 0, 1)).astype(np.uint8))


@lru_cache(maxsize=128)
def sheet(colour: str, pattern: str) -> Image.Image:
    """A sheet of cloth, `_TILE` pixels square: mostly the colour, with a white accent (grey on white)."""
    main = COLOURS[colour]
    accent: Colour = (168, 172, 180) if colour == "white" else (250, 249, 245)
    image = Image.new("RGB", (_TILE, _TILE), main)
    if pattern != "plain":
        _PATTERNS[pattern](ImageDraw.Draw(image), main, accent)
    return image


def _striped(draw: ImageDraw.ImageDraw, main: Colour, accent: Colour) -> None:
    for y in range(0, _TILE, 34):
        draw.rectangle((0, y, _TILE, y + 11), fill=accent)


def _dotted(draw: ImageDraw.ImageDraw, main: Colour, accent: Colour) -> None:
    for row, y in enumerate(range(0, _TILE + 20, 22)):
        for x in range(22 * (row % 2), _TILE + 20, 44):
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=accent)


def _checked(draw: ImageDraw.ImageDraw, main: Colour, accent: Colour) -> None:
    band, cross = blend(main, accent, 0.34), blend(main, accent, 0.62)
    starts = range(0, _TILE, 44)
    for at in starts:
        draw.rectangle((0, at, _TILE, at + 16), fill=band)
        draw.rectangle((at, 0, at + 16, _TILE), fill=band)
    for x in starts:
        for y in starts:
            draw.rectangle((x, y, x + 16, y + 16), fill=cross)
    for at in range(29, _TILE, 44):
        draw.line((0, at, _TILE, at), fill=accent, width=2)
        draw.line((at, 0, at, _TILE), fill=accent, width=2)


def _floral(draw: ImageDraw.ImageDraw, main: Colour, accent: Colour) -> None:
    leaf, heart = blend(main, (60, 110, 70), 0.75), (236, 186, 70)
    for row, y in enumerate(range(14, _TILE + 30, 44)):
        for column, x in enumerate(range(14 + 24 * (row % 2), _TILE + 30, 48)):
            turn = 0.9 * ((3 * row + 5 * column) % 7)
            tip = (x + 17 * math.cos(turn), y + 17 * math.sin(turn))
            draw.ellipse((tip[0] - 6, tip[1] - 4, tip[0] + 6, tip[1] + 4), fill=leaf)
            for petal in range(5):
                angle = turn + petal * 2 * math.pi / 5
                px, py = x + 8 * math.cos(angle), y + 8 * math.sin(angle)
                draw.ellipse((px - 6, py - 6, px + 6, py + 6), fill=accent)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=heart)


_PATTERNS = {"striped": _striped, "dotted": _dotted, "checked": _checked, "floral": _floral}
