"""Slides in a folder."""

from collections import Counter
from pathlib import Path

from he2her2.errors import He2Her2Error
from he2her2.slides import slide_id_of
from he2her2.slides.opening import SLIDE_ENDINGS


def list_slides(path: Path) -> list[Path]:
    """The slide that `path` is, or the slides of a folder, by name.

    Raises:
        He2Her2Error: Nothing there, no slides in the folder, or two slides with one name.
    """
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if not file.is_dir() and not file.name.startswith(".")]
    slides = sorted(file for file in files if file.suffix.lower() in SLIDE_ENDINGS)
    if not slides:
        raise He2Her2Error(
            f"{path}: no slides among its {len(files)} files; give a slide, or a folder with files that end in "
            f"{', '.join(sorted(SLIDE_ENDINGS))}"
        )
    twice = [name for name, n in Counter(map(slide_id_of, slides)).items() if n > 1]
    if twice:
        raise He2Her2Error(
            f"{path}: several slides are named {', '.join(sorted(twice))}; give every slide its own name"
        )
    return slides
