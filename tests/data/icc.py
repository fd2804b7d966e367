"""Colour profiles built by hand from their definition, and what their colours are in sRGB, computed independently."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_GAMMA = 563 / 256
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Floats:
    """Return the matrix from linear RGB to XYZ with a white of D65."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, white(D65))


def white(xy: tuple[float, float]) -> Floats:
    """Return the XYZ of a white."""
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def adaptation(source: Floats, target: Floats) -> Floats:
    """Return the matrix that takes colours seen under one white to another (Bradford)."""
    scale = np.diag((BRADFORD @ target) / (BRADFORD @ source))
    return np.linalg.inv(BRADFORD) @ scale @ BRADFORD


def srgb_encoded(linear: Floats) -> NDArray[np.int64]:
    """Return linear RGB as sRGB in 0..255."""
    linear = linear.clip(0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(curve * 255).astype(np.int64)


def srgb_decoded(values: Floats) -> Floats:
    """Return values in 0..1 with the curve of sRGB as linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def expected(pixels: NDArray[np.uint8], primaries: tuple[tuple[float, float], ...], gamma: float) -> NDArray[np.int64]:
    """Return what pixels of a profile are in sRGB; a gamma of 0 is the curve of sRGB."""
    values = pixels / 255.0
    linear = values**gamma if gamma else srgb_decoded(values)
    return srgb_encoded(linear @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T)


def of_lab(lab: tuple[float, float, float]) -> NDArray[np.int64]:
    """Return what a colour in CIE Lab (D50) is in sRGB."""
    lightness, a, b = lab
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = D50 * np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2)
    return srgb_encoded(np.linalg.inv(to_xyz(SRGB)) @ adaptation(D50, white(D65)) @ xyz)


def fixed(*numbers: float) -> bytes:
    """Return numbers as s15Fixed16."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def profile(space: bytes, kind: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """Return a profile of version 2 with these tags."""
    tags = {b"desc": description("made by hand"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(D50), **tags}
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    rest = struct.pack(">I", len(tags)) + table + body
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI", 128 + len(rest), b"test", 0x02400000) + kind + space + pcs + date + b"acsp"
    head += b"\0" * 28 + fixed(*D50)
    return head.ljust(128, b"\0") + rest


def description(text: str) -> bytes:
    """Return a tag of type ``desc``."""
    words = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + b"\0" * 78


def xyz(values: Floats) -> bytes:
    """Return a tag of type ``XYZ``."""
    return b"XYZ \0\0\0\0" + fixed(*values)


def curve(gamma: float) -> bytes:
    """Return a tone curve: a power, or for 0 that of sRGB at 4096 points."""
    if gamma:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    points = np.rint(srgb_decoded(np.linspace(0, 1, 4096)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(points)) + points.tobytes()


def rgb(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    """Return a profile of RGB with a white of D65; a gamma of 0 is the curve of sRGB."""
    columns = (adaptation(white(D65), D50) @ to_xyz(primaries)).T
    tags = {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return profile(b"RGB ", b"mntr", tags | {name: curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def grey(gamma: float) -> bytes:
    """Return a profile of greys."""
    return profile(b"GRAY", b"mntr", {b"kTRC": curve(gamma)})


def cmyk(colours: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """Return a profile of CMYK whose corners (each ink 0 or 1) have colours in Lab; all others are black."""
    grid = b""
    for corner in np.ndindex(2, 2, 2, 2):
        lightness, a, b = colours.get(tuple(map(int, corner)), (0.0, 0.0, 0.0))  # type: ignore[arg-type]
        grid += bytes([round(lightness * 2.55), round(a + 128), round(b + 128)])
    straight = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = head + straight * 4 + grid + straight * 3
    return profile(b"CMYK", b"prtr", {b"A2B0": table, b"A2B1": table}, b"Lab ")
