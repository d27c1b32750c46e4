"""Fashion objects of the generated shop: colour, pattern, sleeve and shape of the item can all be seen."""

from collections.abc import Callable, Mapping

import numpy as np

from smar.demo.draw import Canvas, Colour, Path, blend
from smar.demo.shop_items import COLOURS

Look = Mapping[str, str]
_WHITE: Colour = (250, 250, 248)
_DARK: Colour = (62, 64, 72)

# Right half of a top from the shoulder to the armpit, per sleeve.
_SLEEVES: dict[str, Path] = {
    "sleeveless": ((0.42, -0.78), (0.34, -0.46, 0.52, -0.30)),
    "short sleeve": ((0.50, -0.74), (0.66, -0.68, 0.98, -0.26), (0.72, -0.10), (0.54, -0.34)),
    "long sleeve": (
        (0.50, -0.74),
        (0.70, -0.68, 0.76, -0.36),
        (0.86, 0.10, 0.97, 0.58),
        (0.76, 0.64),
        (0.54, -0.26),
    ),
}


def _top(canvas: Canvas, neck: Path, sleeve: str, hem: Path) -> None:
    canvas.cloth((*neck, *_SLEEVES[sleeve], *hem))
    if sleeve != "sleeveless":
        for side in (1, -1):
            canvas.fold(((side * 0.46, -0.70), (side * 0.44, -0.45, side * 0.54, -0.30)), 70)
    if sleeve == "long sleeve":
        for side in (1, -1):
            canvas.fold(((side * 0.945, 0.50), (side * 0.74, 0.56)), 60)


def _tshirt(canvas: Canvas, look: Look) -> None:
    deep = look["shape"] == "v-neck"
    neck: Path = ((0.0, -0.30), (0.22, -0.84)) if deep else ((0.0, -0.62), (0.17, -0.62, 0.24, -0.84))
    _top(canvas, neck, look["sleeve"], ((0.54, 0.30, 0.53, 0.80), (0.30, 0.84, 0.0, 0.84)))
    canvas.dye(look["colour"], look["pattern"])
    inner: Path = ((0.0, -0.25), (0.28, -0.83)) if deep else ((0.0, -0.55), (0.24, -0.55, 0.31, -0.82))
    canvas.fold(inner, 80, mirror=True)
    canvas.fold(((-0.53, 0.73), (0.0, 0.79, 0.53, 0.73)), 60)
    canvas.fold(((0.30, 0.1), (0.34, 0.35, 0.26, 0.6)), 30, 4)


def _shirt(canvas: Canvas, look: Look) -> None:
    hem: Path = ((0.54, 0.40, 0.52, 0.72), (0.48, 0.86, 0.30, 0.84), (0.1, 0.78, 0.0, 0.78))
    _top(canvas, ((0.0, -0.66), (0.16, -0.86)), look["sleeve"], hem)
    canvas.dye(look["colour"], look["pattern"])
    main = COLOURS[look["colour"]]
    collar = blend(main, _WHITE, 0.12)
    canvas.part(((0.0, -0.62), (0.13, -0.88), (0.30, -0.80), (0.17, -0.48)), collar, mirror=False, edge=150)
    canvas.part(((0.0, -0.62), (-0.13, -0.88), (-0.30, -0.80), (-0.17, -0.48)), collar, mirror=False, edge=150)
    canvas.fold(((-0.06, -0.58), (-0.06, 0.78)), 60)
    canvas.fold(((0.06, -0.58), (0.06, 0.78)), 60)
    for y in (-0.42, -0.18, 0.06, 0.30, 0.54):
        canvas.disc(0.0, y, 0.028, _WHITE if sum(main) < 560 else _DARK)
    canvas.fold(((0.18, -0.26), (0.42, -0.26), (0.42, 0.0), (0.30, 0.06), (0.18, 0.0), (0.18, -0.26)), 70)


def _dress(canvas: Canvas, look: Look) -> None:
    low, flare = (0.98, 0.62) if look["shape"] == "maxi" else (0.46, 0.58)
    arms: dict[str, Path] = {
        "sleeveless": ((0.30, -0.92), (0.22, -0.70, 0.34, -0.58)),
        "short sleeve": ((0.34, -0.90), (0.48, -0.86, 0.64, -0.56), (0.46, -0.46), (0.35, -0.60)),
        "long sleeve": ((0.34, -0.90), (0.52, -0.86, 0.60, -0.40), (0.70, 0.02), (0.56, 0.06), (0.35, -0.54)),
    }
    neck: Path = ((0.0, -0.74), (0.14, -0.74, 0.19, -0.96))
    skirt: Path = (
        (0.32, -0.36, 0.26, -0.20),
        (0.38, 0.05, flare, low - 0.06),
        (0.30, low + 0.02, 0.0, low + 0.02),
    )
    canvas.cloth((*neck, *arms[look["sleeve"]], *skirt))
    canvas.dye(look["colour"], look["pattern"])
    canvas.fold(((-0.27, -0.20), (0.0, -0.16, 0.27, -0.20)), 90, 4)
    for x in (-0.62, -0.22, 0.22, 0.62):
        canvas.fold(((x * 0.30, -0.10), (x * 0.5, low * 0.4, x * flare, low - 0.04)), 45, 4)
    if look["sleeve"] != "sleeveless":
        for side in (1, -1):
            canvas.fold(((side * 0.30, -0.88), (side * 0.28, -0.70, side * 0.35, -0.56)), 70)


def _skirt(canvas: Canvas, look: Look) -> None:
    long = look["shape"] == "maxi"
    top, low, flare = (-0.90, 0.94, 0.66) if long else (-0.52, 0.42, 0.74)
    canvas.cloth(
        (
            (0.34, top),
            (0.37, top + 0.16),
            (0.50, (top + low) / 2, flare, low - 0.07),
            (0.34, low + 0.03, 0.0, low + 0.03),
        )
    )
    canvas.dye(look["colour"], look["pattern"])
    canvas.fold(((-0.37, top + 0.15), (0.37, top + 0.15)), 90, 4)
    for x in (-0.72, -0.38, 0.0, 0.38, 0.72):
        canvas.fold(((x * 0.42, top + 0.2), (x * 0.6, (top + low) / 2, x * flare, low - 0.03)), 50, 4)


def _sweater(canvas: Canvas, look: Look) -> None:
    high = look["shape"] == "turtleneck"
    neck: Path = ((0.0, -0.98), (0.22, -0.97), (0.24, -0.78)) if high else ((0.0, -0.64), (0.18, -0.64, 0.25, -0.84))
    _top(canvas, neck, "long sleeve", ((0.60, 0.30, 0.54, 0.74), (0.50, 0.84), (0.0, 0.84)))
    canvas.dye(look["colour"], look["pattern"])
    if high:
        canvas.fold(((-0.24, -0.78), (0.0, -0.72, 0.24, -0.78)), 80)
        for x in (-0.15, -0.05, 0.05, 0.15):
            canvas.fold(((x, -0.95), (x, -0.78)), 40, 2)
    else:
        canvas.fold(((0.0, -0.55), (0.26, -0.55, 0.34, -0.82)), 80, mirror=True)
    canvas.fold(((-0.54, 0.68), (0.54, 0.68)), 70)
    for x in np.linspace(-0.48, 0.48, 17).tolist():
        canvas.fold(((x, 0.70), (x, 0.83)), 50, 2)


def _trousers(canvas: Canvas, look: Look) -> None:
    wide = look["shape"] == "wide"
    outer, inner = (0.74, 0.16) if wide else (0.38, 0.13)
    knee = 0.56 if wide else 0.40
    canvas.cloth(((0.0, -0.36), (inner, 0.94), (outer, 0.94), (knee, 0.10, 0.42, -0.50), (0.36, -0.94), (0.0, -0.94)))
    canvas.dye(look["colour"], look["pattern"])
    canvas.fold(((-0.37, -0.80), (0.37, -0.80)), 80)
    canvas.fold(((0.0, -0.80), (0.0, -0.36)), 80)
    for side in (1, -1):
        canvas.fold(((side * 0.36, -0.52), (side * 0.22, -0.60, side * 0.20, -0.79)), 70)
        middle = side * (outer + inner) / 2
        canvas.fold(((side * 0.20, -0.30), (side * 0.24, 0.2, middle, 0.90)), 35, 3)


def _bag(canvas: Canvas, look: Look) -> None:
    main = COLOURS[look["colour"]]
    strap = blend(main, (90, 70, 55), 0.45)
    metal: Colour = (206, 174, 110)
    if look["shape"] == "tote":
        canvas.tube(((-0.34, -0.20), (-0.32, -1.02, 0.0, -0.96), (0.32, -1.02, 0.34, -0.20)), strap, 0.075)
        canvas.cloth(((0.0, -0.30), (0.62, -0.30), (0.74, 0.80), (0.70, 0.88, 0.0, 0.88)))
        canvas.dye(look["colour"], look["pattern"])
        canvas.fold(((-0.63, -0.20), (0.63, -0.20)), 70)
        canvas.disc(0.34, -0.12, 0.045, metal)
        canvas.disc(-0.34, -0.12, 0.045, metal)
    elif look["shape"] == "backpack":
        canvas.tube(((-0.16, -0.78), (-0.14, -1.02, 0.0, -1.0), (0.14, -1.02, 0.16, -0.78)), strap, 0.07)
        for side in (1, -1):
            canvas.tube(((side * 0.44, -0.4), (side * 0.84, -0.1, side * 0.62, 0.62)), strap, 0.10)
        canvas.cloth(((0.0, -0.86), (0.54, -0.86, 0.58, -0.30), (0.64, 0.74), (0.60, 0.90, 0.40, 0.90), (0.0, 0.90)))
        canvas.dye(look["colour"], look["pattern"])
        canvas.fold(((0.0, 0.18), (0.42, 0.18), (0.44, 0.74), (0.0, 0.76)), 90, 4, mirror=True)
        canvas.fold(((-0.54, -0.30), (0.0, -0.14, 0.54, -0.30)), 90, 4)
        canvas.part(((0.0, -0.26), (0.05, -0.26), (0.05, -0.06), (0.0, -0.06)), metal)
    else:
        canvas.cloth(((0.0, -0.44), (0.88, -0.44), (0.90, 0.42), (0.84, 0.48, 0.0, 0.48)))
        canvas.dye(look["colour"], look["pattern"])
        canvas.fold(((-0.88, -0.42), (0.0, 0.44, 0.88, -0.42)), 110, 5)
        canvas.disc(0.0, 0.02, 0.075, metal)


def _shoes(canvas: Canvas, look: Look) -> None:
    main = COLOURS[look["colour"]]
    sole: Colour = (238, 236, 230) if look["colour"] != "white" else (214, 208, 198)
    if look["shape"] == "sneaker":
        canvas.cloth(
            (
                (-0.86, 0.34),
                (-0.90, -0.10, -0.78, -0.36),
                (-0.56, -0.20, -0.30, -0.42),
                (0.06, -0.02, 0.60, 0.04),
                (0.94, 0.12, 0.92, 0.36),
            ),
            mirror=False,
        )
        canvas.dye(look["colour"], look["pattern"])
        canvas.part(
            ((-0.90, 0.30), (0.94, 0.30), (1.0, 0.48, 0.88, 0.52), (-0.84, 0.52), (-0.96, 0.48, -0.90, 0.30)),
            sole,
            mirror=False,
        )
        for x, y in ((-0.20, -0.26), (-0.04, -0.15), (0.13, -0.06)):
            canvas.tube(((x - 0.06, y + 0.16), (x + 0.09, y - 0.02)), sole, 0.05)
        canvas.fold(((0.42, 0.05), (0.40, 0.2, 0.52, 0.30)), 70)
        canvas.fold(((-0.60, -0.24), (-0.50, 0.05, -0.56, 0.29)), 60)
    elif look["shape"] == "boot":
        canvas.cloth(
            (
                (-0.52, -0.88),
                (0.10, -0.88),
                (0.04, -0.20, 0.22, 0.02),
                (0.46, 0.16),
                (0.80, 0.22, 0.82, 0.62),
                (-0.56, 0.62),
                (-0.48, 0.0, -0.52, -0.88),
            ),
            mirror=False,
        )
        canvas.dye(look["colour"], look["pattern"])
        canvas.part(
            ((-0.60, 0.60), (0.84, 0.60), (0.84, 0.74), (-0.08, 0.74), (-0.14, 0.90), (-0.60, 0.90)),
            _DARK,
            mirror=False,
        )
        canvas.fold(((-0.52, -0.76), (0.09, -0.76)), 80)
        canvas.fold(((-0.16, -0.5), (-0.26, -0.5), (-0.24, 0.0), (-0.12, 0.0)), 70)
    else:
        canvas.cloth(
            (
                (-0.84, -0.46),
                (-0.62, -0.44),
                (-0.40, 0.26, 0.16, 0.26),
                (0.40, 0.20, 0.52, 0.24),
                (0.86, 0.36, 0.94, 0.60),
                (0.20, 0.62),
                (-0.30, 0.50, -0.62, 0.04),
                (-0.80, -0.1, -0.84, -0.46),
            ),
            mirror=False,
        )
        canvas.dye(look["colour"], look["pattern"])
        canvas.part(
            (
                (-0.82, -0.20),
                (-0.62, 0.06),
                (-0.74, 0.26, -0.74, 0.64),
                (-0.80, 0.64),
                (-0.79, 0.2, -0.82, -0.20),
            ),
            blend(main, (30, 30, 30), 0.35),
            mirror=False,
        )
        canvas.fold(((-0.60, 0.08), (-0.30, 0.52, 0.20, 0.58), (0.92, 0.58)), 90, 4)


FASHION: dict[str, Callable[[Canvas, Look], None]] = {
    "T-shirt": _tshirt,
    "Shirt": _shirt,
    "Dress": _dress,
    "Skirt": _skirt,
    "Sweater": _sweater,
    "Trousers": _trousers,
    "Bag": _bag,
    "Shoes": _shoes,
}
