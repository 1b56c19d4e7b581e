"""XML of ASAP, of Aperio's ImageScope, of HALO, of Sedeen, and of Hamamatsu's NDP.view."""

import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXml

from he2her2.errors import few_of
from he2her2.preprocessing.annotations.classes import in_short, is_unclassified, use_of_words
from he2her2.preprocessing.annotations.geojson import FormatError
from he2her2.preprocessing.annotations.masks import CountedFrom
from he2her2.preprocessing.annotations.outlines import Drawn, OutlineKind
from he2her2.units import PLAUSIBLE_MPP

_Points: TypeAlias = list[tuple[str, ...]]

_DECLARED = re.compile(rb"""^<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["'][^>]*\?>""")
_READABLE = {
    "gb2312",
    "gbk",
    "gb18030",
    "big5",
    "shift_jis",
    "cp932",
    "euc-jp",
    "euc-kr",
    "cp949",
}  # beside expat's own
_MARKS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig", b"<\0": "utf-16-le", b"\0<": "utf-16-be",
}  # fmt: skip
_SHAPES: dict[str, OutlineKind] = {
    "polygon": "polygon", "freehand": "polygon", "freeform": "polygon", "spline": "polygon", "0": "polygon",
    "rectangle": "rectangle", "1": "rectangle", "ellipse": "ellipse", "2": "ellipse",
}  # fmt: skip
_NOT_AREAS = {"line", "ruler", "arrow", "pin", "point", "3", "4", "5", "7"}


def drawn_in_xml(content: bytes, slide: Path | None) -> tuple[list[Drawn], list[str], CountedFrom, float | None]:
    """Objects of an XML file, cautions, the origin of its coordinates, and the µm per px of its slide where stated.

    Args:
        content: Of the file.
        slide: The slide's file, to find its image in a session of several.

    Raises:
        FormatError: It is broken, of another kind, or of other slides.
    """
    root = _parsed(content)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]  # without the namespace that some programs add
    if root.tag == "ASAP_Annotations":
        return list(_asap(root)), [], "level 0", None
    if root.tag == "Annotations":
        return list(_imagescope(root)), [], "level 0", _mpp(root.get("MicronsPerPixel", ""))
    if root.find(".//overlays") is not None:
        images, cautions = _sedeen_images(root, slide)
        return [drawn for image in images for drawn in _sedeen(image)], cautions, "level 0", None
    if root.tag == "annotations":
        return list(_ndpview(root)), [], "glass", None
    raise FormatError(f"XML of another kind (<{root.tag[:40]}>)")


def _mpp(text: str) -> float | None:
    """A scale that slides have; None for anything else, such as the 0 of a slide without one."""
    try:
        found = float(text.replace(",", "."))
    except ValueError:
        return None
    return found if PLAUSIBLE_MPP[0] <= found <= PLAUSIBLE_MPP[1] else None


def _parsed(content: bytes) -> Element:
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    content = content if mark else content.lstrip()
    declared = _DECLARED.match(content)
    encoding = _MARKS.get(mark) or (declared[1].decode().lower() if declared else "utf-8")
    try:
        if mark or encoding in _READABLE:
            text = re.sub(r"^\s*<\?xml[^>]*\?>", "", content.decode(encoding))
            return SafeXml.fromstring(text.lstrip("\ufeff"))
        return SafeXml.fromstring(content)
    except ParseError as error:
        raise FormatError(f"broken XML ({error}); export it again") from None
    except DefusedXmlException:
        raise FormatError("XML with entity declarations, which are unsafe; export it again without them") from None
    except (LookupError, ValueError):
        raise FormatError(f"XML in the encoding {encoding!r}, which cannot be read; save it as UTF-8") from None


def _asap(root: Element) -> Iterator[Drawn]:
    """<Annotation Name Type PartOfGroup><Coordinates><Coordinate Order X Y/>...; the group names the class.

    A group may be part of others, which come before it in the class: "Tumor: left".
    """
    parents = {group.get("Name", ""): group.get("PartOfGroup", "None") for group in root.iter("Group")}
    for annotation in root.iterfind("Annotations/Annotation"):
        kind = _SHAPES.get(annotation.get("Type", "").casefold())
        if kind is not None:
            path = _path(annotation.get("PartOfGroup", "None"), parents)
            points = _in_order(annotation.findall("Coordinates/Coordinate"))
            yield Drawn(": ".join(path), [[points]], (annotation.get("Name", ""),), kind)


def _in_order(nodes: list[Element]) -> _Points | None:
    """Corners in the order that is stated, or else in that of the file; None where only part of it is stated."""
    stated = [node.get("Order") for node in nodes]
    if not any(stated):
        return _corners(nodes)
    try:
        order = [float(text or "") for text in stated]
    except ValueError:
        return None
    return _corners([nodes[i] for i in sorted(range(len(nodes)), key=order.__getitem__)])


def _path(group: str, parents: dict[str, str]) -> list[str]:
    """A group after the groups that it is part of."""
    path: list[str] = []
    while not is_unclassified(group) and group not in path:
        path.insert(0, group)
        group = parents.get(group, "None")
    return path


def _corners(nodes: list[Element]) -> _Points:
    """Texts of X and Y, with a decimal point."""
    return [(node.get("X", "").replace(",", "."), node.get("Y", "").replace(",", ".")) for node in nodes]


def _imagescope(root: Element) -> Iterator[Drawn]:
    """<Annotation Name><Regions><Region Type Text NegativeROA><Vertices><Vertex X Y/>...; a layer is a class.

    A region whose own text says what it is adds it: "Tumor: necrosis". A negative region is a hole in its layer.
    """
    for layer in root.iterfind("Annotation"):
        names = [layer.get("Name", ""), *(node.get("Value", "") for node in layer.iterfind("Attributes/Attribute"))]
        group = next((name for name in names if not is_unclassified(name)), "")
        for region in layer.iterfind("Regions/Region"):
            stated = region.get("Type", "0").casefold()
            if stated in _NOT_AREAS:
                continue
            own = [region.get("Text", ""), *(node.get("Value", "") for node in region.iterfind("Attributes/Attribute"))]
            nodes = [node for node in region.iterfind("Vertices/*") if node.tag in {"Vertex", "V"}]
            is_hole = region.get("NegativeROA", "0").casefold() in {"1", "true"}
            said = next((name for name in own if use_of_words(name) is not None), "")
            parts = [name for name in (group, "" if is_hole else said) if name]
            yield Drawn(": ".join(parts), [[_corners(nodes)]], (), _SHAPES.get(stated, "polygon"), is_hole)


def _sedeen_images(root: Element, slide: Path | None) -> tuple[list[Element], list[str]]:
    """The images of a session that are the slide, and a caution where its only one has another name."""
    images = [image for image in root.iter("image") if image.find("overlays") is not None] or [root]
    names = [_file_name(image.get("identifier", "")) for image in images]
    if slide is None or not any(names):
        return images, []
    own = [name == slide.name.casefold() for name in names]
    if not any(own):
        own = [
            slide.stem.casefold() in {name, name.rpartition(".")[0]} for name in names
        ]  # the slide in another format
    if any(own):
        return [image for image, is_own in zip(images, own, strict=True) if is_own], []
    shown = few_of([name or "without a name" for name in names])
    if len(images) == 1:
        return images, [f"its annotations were drawn on an image of another name, {shown}"]
    raise FormatError(
        f"a session of {len(images)} images ({shown}) and none of them {slide.name}; give its own session"
    )


def _file_name(identifier: str) -> str:
    """Name of a file in lower case, of a path of any system."""
    return in_short(PureWindowsPath(identifier).name.casefold())


def _sedeen(image: Element) -> Iterator[Drawn]:
    """<overlays><graphic type name description><point-list><point>x,y</point>...; an open polyline is no region."""
    for graphic in image.iterfind(".//overlays/graphic"):
        texts = [node.text or "" for node in graphic.iterfind("point-list/point")]
        points = [tuple(text.split(",")) if text.count(",") == 1 else (text,) for text in texts]
        stated = graphic.get("type", "").casefold()
        kind = "polygon" if stated == "polyline" and points[:1] == points[-1:] else _SHAPES.get(stated)
        if kind is not None:
            yield Drawn(graphic.get("description") or "", [[points]], (graphic.get("name", ""),), kind)


def _ndpview(root: Element) -> Iterator[Drawn]:
    """<ndpviewstate><title><coordformat><annotation type><closed><pointlist><point><x><y>...

    An open line is no region; a circle has <x>, <y> and <radius>. The title is the region's own name: the program has
    no classes.
    """
    for view in root.iterfind("ndpviewstate"):
        unit = view.findtext("coordformat", "nanometers").strip().casefold()
        if unit != "nanometers":
            raise FormatError(f"coordinates in {in_short(unit)}, not nanometers; save it with NDP.view2")
        names = (view.findtext("title") or "", view.findtext("details") or "")
        for node in view.iterfind("annotation"):
            kind = node.get("type", "").casefold()
            if kind == "circle":
                yield Drawn("", [[_around(node)]], names, "ellipse")
            elif kind in _SHAPES and node.findtext("closed", "1").strip() != "0":
                points = [_x_y(point) for point in node.iterfind("pointlist/point")]
                yield Drawn("", [[points]], names, _SHAPES[kind])


def _x_y(node: Element) -> tuple[str, str]:
    return node.findtext("x", ""), node.findtext("y", "")


def _around(circle: Element) -> _Points | None:
    """Two opposite corners of the box of a circle; None where it is incomplete."""
    try:
        x, y, radius = (float(circle.findtext(name, "")) for name in ("x", "y", "radius"))
    except ValueError:
        return None
    return [(str(x - radius), str(y - radius)), (str(x + radius), str(y + radius))]
