"""Open slides: one `Slide` protocol, two backends behind it."""

from he2her2.slides.opening import open_slide
from he2her2.slides.slide import Level, Slide, slide_id_of

__all__ = ["Level", "Slide", "open_slide", "slide_id_of"]
