"""ICC profiles of version 2, built byte by byte: Pillow itself makes sRGB only."""

import struct
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
D65: Point = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
SWAPPED = (SRGB[2], SRGB[1], SRGB[0])
"""What is stored as red is shown as blue."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(primaries: Sequence[Point], gamma: float = 2.2) -> bytes:
    """A display of these primaries and white D65 with one gamma for all channels."""
    parts = {b"rXYZ": 0, b"gXYZ": 1, b"bXYZ": 2}
    columns = _adapted(primaries)
    tags = {name: _xyz(columns[:, at]) for name, at in parts.items()}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags | {name: _gamma(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _gamma(gamma)})


def cmyk_profile(ink: tuple[int, int, int] = (136, 208, 195)) -> bytes:
    """A printer whose pure cyan comes out in the Lab colour `ink` (8 bits each), everything else in white."""
    straight = bytes(range(256))
    corners = b"".join(bytes(ink) if at == 8 else bytes((255, 128, 128)) for at in range(16))  # cyan varies slowest
    unit = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + unit + straight * 4 + corners + straight * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def _adapted(primaries: Sequence[Point]) -> np.ndarray:
    """XYZ of the primaries as columns, scaled to white and adapted to D50."""

    def xyz(point: Point) -> np.ndarray:
        return np.array([point[0] / point[1], 1, (1 - sum(point)) / point[1]])

    columns = np.stack([xyz(point) for point in primaries], 1)
    columns = columns * np.linalg.solve(columns, xyz(D65))
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ xyz(D65)))
    return np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ columns


def _fixed(numbers: Sequence[float]) -> bytes:
    return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers)


def _xyz(numbers: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(numbers)


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0", b"wtpt": _xyz(_D50)} | tags
    at = 132 + 12 * len(tags)
    index, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        index += struct.pack(">4sII", tag, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytes(4) + b"lcms" + bytes.fromhex("02400000") + kind + space + connection + bytes(12) + b"acsp" + bytes(24)
    head += bytes(4) + _fixed(_D50) + b"lcms" + bytes(44)
    whole = head + index + body
    return struct.pack(">I", len(whole)) + whole[4:]
