"""Use of the classes of a cohort's annotations, in lines for the user."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from he2her2.cohort.tasks import SlideTask
from he2her2.errors import AnnotationError, few_of

_SHOWN = 20


def annotation_lines(tasks: Iterable[SlideTask], chosen: Sequence[str] = ()) -> Iterator[str]:
    """Yield the use of each class with its number of slides, and what was skipped on which slide.

    Files that cannot be used are passed over, since the work on their slide refuses them; so are pictures, which
    have no classes.

    Args:
        tasks: Slides, with annotations or without.
        chosen: Classes that are tumour; by their names if empty.
    """
    uses: Counter[str] = Counter()
    cautions: list[str] = []
    for task in tasks:
        if task.annotations is None or task.annotations.suffix.lower() == ".png":
            continue
        try:
            annotation = task.read_annotation(chosen)
        except AnnotationError:
            continue
        if annotation is not None:
            uses.update(f"{name}: {use}" for name, use in annotation.classes.items())
            cautions += [f"CAUTION {task.slide_id}: {text}" for text in annotation.warnings]
    if uses:
        most = [f"{use} ({n} {'slide' if n == 1 else 'slides'})" for use, n in uses.most_common()]
        yield f"annotations: {few_of(most, _SHOWN, between='; ')}"
    yield from cautions
