"""Writers of small test slides: every layout the readers know, and every damage they must survive."""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from PIL import Image

APERIO = "Aperio Image Library v12.0.15\n{w}x{h} ({t}x{t}) JPEG/RGB Q=70|AppMag = {mag:g}|MPP = {mpp}"
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="40"/></Instrument>'
    '<Image ID="Image:0" Name="slide"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{w}" '
    'SizeY="{h}" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true" {mpp}>'
    '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)
_COMPRESSION = {"jpeg": 7, "jpeg-rgb": 7, "jpeg2000": 33005, "jpeg2000-ycbcr": 33003, "webp": 50001}


@dataclass(frozen=True)
class SlideSpec:
    """What to write.

    Attributes:
        codec: jpeg, jpeg-rgb (components are RGB), jpeg2000, jpeg2000-ycbcr, webp, lzw, zlib or none.
        layout: aperio, generic (reduced directories), subifd (reduced sub-directories) or ome.
        tile: Side of the compressed tiles; 0 writes strips.
        mpp: None leaves it out.
        tables: Put the JPEG tables into the TIFF, as scanners do.
        predictor: Horizontal differences, for lzw and zlib.
        absent: Tiles of level 0 to leave out.
    """

    codec: str = "jpeg"
    layout: str = "aperio"
    tile: int = 64
    mpp: float | None = 0.25
    bigtiff: bool = False
    byteorder: Literal["<", ">"] = "<"
    tables: bool = False
    predictor: bool = False
    absent: tuple[int, ...] = ()
    quality: int = 75


def synthetic_pixels(w: int, h: int, seed: int = 0) -> np.ndarray:
    """(h, w, 3) smooth colours with grain: compressible, and different everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 250, (h // 12 + 2, w // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-12, 13, (h, w, 1)), 0, 255).astype(np.uint8)


def pyramid(pixels: np.ndarray, downsamples: Sequence[int] = (1,)) -> list[np.ndarray]:
    """Levels by averaging boxes; the rest at the right and the bottom is cut, as scanners do."""
    levels, sums, side = [], pixels, 1
    for n in downsamples:
        sums, side = (_box_sums(sums, n // side), n) if n % side == 0 else (_box_sums(pixels, n), n)
        levels.append(pixels.copy() if n == 1 else np.rint(sums / n**2).astype(np.uint8))
    return levels


def _box_sums(pixels: np.ndarray, n: int) -> np.ndarray:
    """(h // n, w // n, 3) sums of boxes of n x n px."""
    h, w = pixels.shape[0] // n, pixels.shape[1] // n
    rows = pixels[: h * n].reshape(h, n, -1, 3).sum(axis=1, dtype=np.int32)
    return np.asarray(rows[:, : w * n].reshape(h, w, n, 3).sum(axis=2, dtype=np.int32))


def write_slide(path: Path, levels: Sequence[np.ndarray], spec: SlideSpec | None = None) -> Path:
    """Write a slide; `levels` are (h, w, 3) uint8, finest first."""
    spec = spec or SlideSpec()
    with tifffile.TiffWriter(path, bigtiff=spec.bigtiff, byteorder=spec.byteorder) as tiff:
        for i, pixels in enumerate(levels):
            tiff.write(**_page(spec, i, pixels, len(levels)))
    return path


def write_planar(path: Path, pixels: np.ndarray, compression: str | None = None, predictor: bool = False) -> Path:
    """A tiled TIFF of three colour planes."""
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    how: dict[str, Any] = {"compression": compression, "predictor": predictor, "metadata": None}
    tifffile.imwrite(path, planes, tile=(64, 64), photometric="rgb", planarconfig="separate", **how)
    return path


def write_ndpi(
    path: Path, levels: Sequence[np.ndarray], mpp: float = 0.25, offset_nm: tuple[int, int] = (0, 0), hole: int = 0
) -> Path:
    """Write a Hamamatsu file as NanoZoomers do: a JPEG a level, and directories whose offsets have 64 bits.

    Args:
        path: Where to.
        levels: (h, w, 3) of each level, finest first.
        mpp: µm per px of the first.
        offset_nm: Centre of the picture from that of the glass slide, (x, y).
        hole: Bytes between the pixels and the directories.
    """
    jpegs = [imagecodecs.jpeg8_encode(level, level=95) for level in levels]
    body = bytearray(b"II*\0" + bytes(8))
    starts = []
    for jpeg in jpegs:
        starts.append(len(body))
        body += jpeg + bytes(len(jpeg) % 2)
    link, images_end = 4, len(body)
    for level, jpeg, start in zip(levels, jpegs, starts, strict=True):
        (h, w, _), reduced = level.shape, len(levels[0]) / len(level)
        values = {
            256: ("I", w), 257: ("I", h), 259: ("H", 7), 262: ("H", 6), 271: ("s", b"Hamamatsu\0"), 273: ("I", start),
            277: ("H", 3), 278: ("I", h), 279: ("I", len(jpeg)), 282: ("r", 1e4 / mpp / reduced),
            283: ("r", 1e4 / mpp / reduced), 296: ("H", 3), 65420: ("I", 1), 65421: ("f", 10 / mpp / reduced),
            65422: ("i", offset_nm[0]), 65423: ("i", offset_nm[1]), 65424: ("i", 0),
        }  # fmt: skip
        kinds = {"s": 2, "H": 3, "I": 4, "r": 5, "i": 9, "f": 11}
        entries = high = b""
        for code, (kind, value) in values.items():
            count = 1
            if kind in "sr":
                data = value if kind == "s" else struct.pack("<II", round(value * 1000), 1000)
                field, count = struct.pack("<Q", len(body) + hole), len(value) if kind == "s" else 1
                body += data
            else:
                field = struct.pack(f"<{kind}", value).ljust(8, b"\0")
            entries += struct.pack("<HHI", code, kinds[kind], count) + field[:4]
            high += field[4:]
        body[link : link + 8] = struct.pack("<Q", len(body) + hole)
        body += struct.pack("<H", len(values)) + entries
        link = len(body)
        body += bytes(8) + high
    with path.open("wb") as file:
        file.write(body[:images_end])
        file.seek(hole, os.SEEK_CUR)
        file.write(body[images_end:])
    return path


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    mpp: float,
    *,
    absent: Sequence[int] = (),
    instance: int = 1,
    kind: str = "VOLUME",
    planes: int = 1,
) -> Path:
    """Write one level of a DICOM series, without the frames `absent`; px are 0.25 µm where `instance` is 1.

    Args:
        path: Where to; the levels of a series share a folder.
        pixels: (h, w, 3).
        mpp: µm per px that PixelSpacing states.
        absent: Frames of 64 px to leave out, in raster order.
        instance: Number of the level, from 1.
        kind: VOLUME, LABEL or OVERVIEW.
        planes: Frames at each place.
    """
    h, w = pixels.shape[:2]
    places = [(y, x) for y in range(0, h, 64) for x in range(0, w, 64)]
    places = [place for i, place in enumerate(places) if i not in absent] * planes
    tiles = (np.pad(pixels[y : y + 64, x : x + 64], ((0, 64), (0, 64), (0, 0)))[:64, :64] for y, x in places)
    frames = [simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality=90, colorsubsampling="444") for tile in tiles]
    um = f"{mpp / 1000:.8f}"
    measures = _element(0x00289110, "SQ", [_element(0x00280030, "DS", f"{um}\\{um}")])
    at = [
        [_element(0x0048021A, "SQ", [_element(0x0048021E, "SL", x + 1) + _element(0x0048021F, "SL", y + 1)])]
        for y, x in places
    ]
    kinds = "\\".join(
        ("ORIGINAL" if instance == 1 else "DERIVED", "PRIMARY", kind, "NONE" if instance == 1 else "RESAMPLED")
    )
    whole = 0.25 * 4 ** (instance - 1) / 1000
    body = b"".join(
        [
            *(_element(0x00080008, "CS", kinds), _element(0x00080016, "UI", _WSI)),
            *(_element(0x00080018, "UI", f"1.2.{instance}"), _element(0x0020000E, "UI", "1.2.3")),
            *(_element(0x00209311, "CS", "TILED_SPARSE"), _element(0x00280002, "US", 3)),
            *(_element(0x00280004, "CS", "YBR_FULL_422"), _element(0x00280006, "US", 0)),
            *(_element(0x00280008, "IS", str(len(frames))), _element(0x00280010, "US", 64)),
            *(_element(0x00280011, "US", 64), _element(0x00280100, "US", 8), _element(0x00280101, "US", 8)),
            *(_element(0x00280102, "US", 7), _element(0x00280103, "US", 0)),
            *(_element(0x00480001, "FL", w * whole), _element(0x00480002, "FL", h * whole)),
            *(_element(0x00480006, "UL", w), _element(0x00480007, "UL", h)),
            _element(0x52009229, "SQ", [measures]),
            _element(0x52009230, "SQ", [b"".join(items) for items in at]),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + _item(b""),
            *(_item(frame + bytes(len(frame) % 2)) for frame in frames),
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        ]
    )
    meta = _element(0x00020001, "OB", b"\0\1") + _element(0x00020002, "UI", _WSI)
    meta += _element(0x00020003, "UI", f"1.2.{instance}") + _element(0x00020010, "UI", "1.2.840.10008.1.2.4.50")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + _element(0x00020000, "UL", len(meta)) + meta + body)
    return path


_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


def _element(tag: int, kind: str, value: Any) -> bytes:
    """An element of DICOM: explicit kinds, little endian."""
    number = {"US": "<H", "UL": "<I", "SL": "<i", "FL": "<f"}.get(kind)
    if number:
        data = struct.pack(number, value)
    elif kind == "SQ":
        data = b"".join(map(_item, value))
    elif kind == "OB":
        data = value
    else:
        data = value.encode()
        data += (b"\0" if kind == "UI" else b" ") * (len(data) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind.encode())
    long = kind in ("SQ", "OB")
    return head + (struct.pack("<HI", 0, len(data)) if long else struct.pack("<H", len(data))) + data


def _item(data: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def write_packbits(path: Path, pixels: np.ndarray) -> Path:
    """A tiled TIFF in a compression that only OpenSlide reads."""
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="packbits", metadata=None)
    return path


def tile_spans(path: Path, page: int = 0) -> list[tuple[int, int]]:
    """First byte and number of bytes of every compressed tile of a page."""
    with tifffile.TiffFile(path) as tiff:
        return list(zip(tiff.pages[page].dataoffsets, tiff.pages[page].databytecounts, strict=True))


def corrupt_tile(path: Path, index: int, page: int = 0) -> Path:
    """Overwrite the middle of a compressed tile by zeros, as a bad disk sector does."""
    offset, count = tile_spans(path, page)[index]
    with path.open("r+b") as file:
        file.seek(offset + count // 4)
        file.write(bytes(count // 2))
    return path


def drop_tiles(path: Path, indices: Sequence[int], page: int = 0) -> Path:
    """Leave compressed tiles of a page out: their byte counts become 0."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].aspage().tags["TileByteCounts"]
        start, width, order = tag.valueoffset, {3: 2, 4: 4, 16: 8}[int(tag.dtype)], tiff.byteorder
    with path.open("r+b") as file:
        for index in indices:
            file.seek(start + index * width)
            file.write((0).to_bytes(width, "little" if order == "<" else "big"))
    return path


def truncated(path: Path, share: float) -> Path:
    """A copy beside the slide that holds only its first `share`."""
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[: int(len(data) * share)])
    return cut


def write_huge_header(path: Path, side: int = 1_000_000) -> Path:
    """A few bytes of classic TIFF that claim `side` x `side` px in tiles of 256."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 7), (262, 3, 6), (277, 3, 3), (322, 3, 256)]
    tags += [(323, 3, 256), (324, 4, 8), (325, 4, 4)]
    body = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4))
    return path


def _page(spec: SlideSpec, level: int, pixels: np.ndarray, n_levels: int) -> dict[str, Any]:
    """Arguments of TiffWriter.write for one level."""
    h, w = pixels.shape[:2]
    page: dict[str, Any] = {"metadata": None, "photometric": "rgb", "subfiletype": 1 if level else 0}
    if spec.tile:
        page["tile"] = (spec.tile, spec.tile)
    else:
        page["rowsperstrip"] = 16
    if spec.layout in ("subifd", "ome") and not level:
        page["subifds"] = n_levels - 1
    if not level:
        page |= _description(spec, w, h)
    if spec.codec in ("lzw", "zlib", "none"):
        return page | {
            "data": pixels,
            "compression": None if spec.codec == "none" else spec.codec,
            "predictor": spec.predictor,
        }
    tiles = [_encode(spec, tile) for tile in _cut(pixels, spec.tile or w, spec.tile or 16, padded=bool(spec.tile))]
    if spec.codec == "jpeg":
        page |= {"photometric": "ycbcr", "subsampling": (2, 2)}
    if spec.tables:
        tables, tiles = split_tables(tiles)
        page["extratags"] = [(347, 7, len(tables), tables, True)]
    tiles = [b"" if not level and i in spec.absent else tile for i, tile in enumerate(tiles)]
    return page | {
        "data": iter(tiles),
        "shape": pixels.shape,
        "dtype": np.uint8,
        "compression": _COMPRESSION[spec.codec],
    }


def _magnification(mpp: float | None) -> float:
    """The magnification that scanners state for a resolution."""
    return min((40, 20, 10, 5, 2.5, 1.25), key=lambda mag: abs(np.log((mpp or 0.25) * mag / 10)))


def _description(spec: SlideSpec, w: int, h: int) -> dict[str, Any]:
    if spec.layout == "aperio":
        text = APERIO.format(w=w, h=h, t=spec.tile, mpp=spec.mpp, mag=_magnification(spec.mpp))
        return {"description": text if spec.mpp is not None else text.partition("|MPP")[0]}
    if spec.layout == "ome":
        mpp = "" if spec.mpp is None else f'PhysicalSizeX="{spec.mpp}" PhysicalSizeY="{spec.mpp}"'
        return {"description": OME.format(w=w, h=h, mpp=mpp).encode()}
    if spec.mpp is None:
        return {}
    return {"resolution": (1e4 / spec.mpp, 1e4 / spec.mpp), "resolutionunit": "CENTIMETER"}


def _cut(pixels: np.ndarray, tile_w: int, tile_h: int, *, padded: bool) -> Iterator[np.ndarray]:
    """Tiles in raster order, padded with black, which no reader may show."""
    for y in range(0, pixels.shape[0], tile_h):
        for x in range(0, pixels.shape[1], tile_w):
            piece = pixels[y : y + tile_h, x : x + tile_w]
            beyond = ((0, tile_h - piece.shape[0]), (0, tile_w - piece.shape[1]), (0, 0))
            yield np.ascontiguousarray(np.pad(piece, beyond) if padded else piece)


def _encode(spec: SlideSpec, tile: np.ndarray) -> bytes:
    match spec.codec:
        case "jpeg":
            data = simplejpeg.encode_jpeg(tile, quality=spec.quality, colorspace="RGB", colorsubsampling="420")
        case "jpeg-rgb":
            data = imagecodecs.jpeg8_encode(tile, level=spec.quality, colorspace="rgb", outcolorspace="rgb")
        case "webp":
            data = imagecodecs.webp_encode(tile, level=spec.quality)
        case "jpeg2000-ycbcr":
            ycbcr = np.asarray(Image.fromarray(tile).convert("YCbCr"))
            data = imagecodecs.jpeg2k_encode(ycbcr, level=0, codecformat="j2k", mct=False)
        case _:
            data = imagecodecs.jpeg2k_encode(tile, level=40, codecformat="j2k")
    return bytes(data)


def split_tables(jpegs: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """JPEGs of equal tables as abbreviated streams: the tables apart, each JPEG without them."""
    tables = b""
    short = []
    for jpeg in jpegs:
        rest, found, position = b"\xff\xd8", b"", 2
        while jpeg[position + 1] != 0xDA:  # start of scan: the image's data follow
            end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4])
            segment = jpeg[position:end]
            if jpeg[position + 1] in (0xDB, 0xC4):  # quantisation and Huffman tables
                found += segment
            else:
                rest += segment
            position = end
        tables = found
        short.append(rest + jpeg[position:])
    return b"\xff\xd8" + tables + b"\xff\xd9", short
