"""Reports of a run: a page a slide and one for the run, each a single HTML file that opens offline and prints."""

from he2her2.report.weights import find_weights
from he2her2.report.writing import PagesRequest, WrittenPages, write_pages

__all__ = [
    "PagesRequest",
    "WrittenPages",
    "find_weights",
    "write_pages",
]
