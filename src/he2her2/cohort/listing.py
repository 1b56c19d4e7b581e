"""Slides in a folder."""

from collections import Counter
from pathlib import Path

from he2her2.errors import He2Her2Error
from he2her2.slides import SLIDE_ENDINGS, slide_id_of, slides_in


def list_slides(path: Path) -> list[Path]:
    """The slide that `path` is, or the slides of a folder, by name.

    Raises:
        He2Her2Error: Nothing there, no slides in the folder, or two slides with one name.
    """
    if not path.is_dir():
        return [path]
    slides = slides_in(path)
    if not slides:
        n = sum(not file.is_dir() and not file.name.startswith(".") for file in path.iterdir())
        raise He2Her2Error(
            f"{path}: no slides among its {n} files; give a slide, or a folder with files that end in "
            f"{', '.join(sorted(SLIDE_ENDINGS))}"
        )
    twice = [name for name, n in Counter(map(slide_id_of, slides)).items() if n > 1]
    if twice:
        raise He2Her2Error(
            f"{path}: several slides are named {', '.join(sorted(twice))}; give every slide its own name"
        )
    return slides
