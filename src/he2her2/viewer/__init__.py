"""A run, or slides, in the browser: one page on one port, which shows what its catalogue holds and nothing else.

It needs the extra `viewer` (Starlette and uvicorn). `static/` holds the page's scripts, and OpenSeadragon with its
licence; nothing is loaded from elsewhere.
"""

from he2her2.viewer.app import make_app
from he2her2.viewer.catalogue import Catalogue, ViewedSlide, read_catalogue
from he2her2.viewer.reviews import Reviews
from he2her2.viewer.serving import listen, serve

__all__ = ["Catalogue", "Reviews", "ViewedSlide", "listen", "make_app", "read_catalogue", "serve"]
