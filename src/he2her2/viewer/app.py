"""The viewer as a web application: pages, tiles, layers and reviews, each for a slide of the catalogue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio.to_thread
import imagecodecs
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from he2her2 import __version__
from he2her2.errors import (
    AnnotationError,
    EvaluationError,
    He2Her2Error,
    OutputError,
    SlideError,
    UnreadableRegionError,
)
from he2her2.geometry import Point, Size
from he2her2.results import TILES_FILE
from he2her2.slides import encoded_jpeg, hatched
from he2her2.viewer.alignments import SectionPair, find_pair, pair_of_json
from he2her2.viewer.catalogue import Catalogue, ViewedSlide
from he2her2.viewer.descriptions import describe_list, describe_review, describe_slide
from he2her2.viewer.guard import MAX_BODY_BYTES, Guard
from he2her2.viewer.layers import (
    ANNOTATIONS,
    TileLayer,
    annotation_layer,
    annotation_picture,
    picture,
    samples,
    tile_layer,
)
from he2her2.viewer.open_slides import OpenSlides, SlideChangedError, SlideGoneError
from he2her2.viewer.reviews import Reviews, StaleError

_THREADS = 8
_THUMBNAIL_PX = 160
_KEPT_THUMBNAILS = 1024
_KEPT_TILE_LAYERS = 4
_KEPT_PAIRS = 1024
_FOR_EVER = {"cache-control": "private, max-age=604800, immutable"}


class NotHereError(He2Her2Error):
    """Something that the catalogue does not hold was asked for."""


_STATUS: dict[type[He2Her2Error], int] = {
    NotHereError: 404,
    SlideGoneError: 410,
    SlideChangedError: 409,
    StaleError: 409,
    AnnotationError: 422,
    SlideError: 422,
    OutputError: 507,
}


class Viewer:
    """Sources that the application answers from.

    Attributes:
        catalogue: What may be shown.
        reviews: Where reviewers' files lie.
        slides: Open slides.
    """

    def __init__(self, catalogue: Catalogue, reviews: Reviews, reread: Callable[[], Catalogue] | None) -> None:
        self.catalogue = catalogue
        self.reviews = reviews
        self._reread = reread
        self._state = catalogue.state
        self.slides = OpenSlides()
        self._thumbnail = lru_cache(_KEPT_THUMBNAILS)(self._drawn_thumbnail)
        self._search = lru_cache(_KEPT_PAIRS)(self._searched)
        self._tiles = lru_cache(_KEPT_TILE_LAYERS)(self._read_tiles)

    def page(self, _request: Request) -> Response:
        """The page."""
        template = _PAGES.get_template("index.html")
        return HTMLResponse(template.render(name=self.catalogue.name, version=__version__))

    def list_slides(self, _request: Request) -> Response:
        """All slides, as the list shows them; of a run that goes on, those that have ended by now."""
        self._keep_up()
        return JSONResponse(describe_list(self.catalogue, self.reviews))

    def slide(self, request: Request) -> Response:
        """One slide: its file, its result and its layers; or what is wrong with it."""
        slide = self._asked(request)
        folder = self.catalogue.folder(slide.slide_id)
        tiles, problems = None, []
        try:
            tiles = self._tiles_of(slide)
        except EvaluationError as error:
            problems.append(str(error))
        described = describe_slide(self.catalogue, slide, folder, tiles, self.slides)
        described["problems"] += problems
        return JSONResponse(described)

    def thumbnail(self, request: Request) -> Response:
        """A small picture of a slide."""
        slide = self._asked(request)
        with self.slides.lend(slide) as opened:
            version = opened.version
        return Response(self._thumbnail(slide.slide_id, version), media_type="image/jpeg")

    def zoom_tile(self, request: Request) -> Response:
        """A tile of a level; what cannot be decoded is hatched."""
        slide, at = self._asked(request), request.path_params
        version = request.query_params.get("v", "")
        with self.slides.lend(slide, version) as opened:
            try:
                tile = opened.zoom.tile(at["level"], at["column"], at["row"])
            except IndexError as error:
                raise NotHereError(f"{slide.slide_id}: {error}") from None
        return Response(tile.data, media_type=tile.media_type, headers=_FOR_EVER)

    def layer(self, request: Request) -> Response:
        """A mask or the tumour map, to be laid over the slide."""
        slide, key = self._asked(request), request.path_params["key"]
        if key == ANNOTATIONS and slide.annotations is not None:
            with self.slides.lend(slide) as opened:
                px_l0 = annotation_layer(opened.zoom.slide).px_l0
                drawn = annotation_picture(slide.annotations, opened.zoom.slide, px_l0)
            return Response(drawn, media_type="image/png")
        try:
            return Response(picture(self._folder(slide), key), media_type="image/png")
        except KeyError:
            raise NotHereError(f"{slide.slide_id}: no layer of this name") from None

    def tumour_samples(self, request: Request) -> Response:
        """Samples of the tumour map."""
        return JSONResponse(samples(self._folder(self._asked(request))))

    def tile_column(self, request: Request) -> Response:
        """One number, or a few, of every scored tile."""
        slide, name = self._asked(request), request.path_params["name"]
        tiles = self._tiles_of(slide)
        if tiles is None or name not in ("origins", *tiles.columns):
            raise NotHereError(f"{slide.slide_id}: its tiles have no such column")
        return Response(tiles.column(name), media_type="application/octet-stream")

    def scored_tile(self, request: Request) -> Response:
        """A scored tile as the network saw it: at its µm per px, exact."""
        slide = self._asked(request)
        tiles = self._tiles_of(slide)
        index = request.path_params["index"]
        if tiles is None or not 0 <= index < len(tiles.grid):
            raise NotHereError(f"{slide.slide_id}: no such tile")
        grid = tiles.grid
        with self.slides.lend(slide) as opened:
            origin = Point(*grid.origins_l0[index].tolist())
            size = Size(grid.side_px, grid.side_px)
            try:
                pixels = opened.zoom.slide.read(origin, size, grid.mpp)
            except UnreadableRegionError:
                pixels = hatched(size)
        return Response(bytes(imagecodecs.png_encode(pixels, level=1)), media_type="image/png")

    def regions(self, request: Request) -> Response:
        """A slide's regions."""
        slide = self._asked(request)
        collection, version = self.reviews.regions(slide.slide_id, self._bounds(slide))
        return JSONResponse({"version": version, "collection": collection})

    async def save_regions(self, request: Request) -> Response:
        """Take a slide's regions."""
        slide = self._asked(request)
        body, seen = await _body(request), request.query_params.get("version", "")

        def save() -> str:
            return self.reviews.save_regions(slide.slide_id, body, self._bounds(slide), seen)

        return JSONResponse({"version": await anyio.to_thread.run_sync(save)})

    async def save_verdict(self, request: Request) -> Response:
        """Take a verdict on a slide."""
        body = await _body(request)

        def save() -> dict[str, Any] | None:
            self._keep_up()
            slide = self._asked(request)
            return describe_review(slide, self.reviews.save_verdict(slide.slide_id, body, slide.judged))

        return JSONResponse(await anyio.to_thread.run_sync(save))

    def beside(self, request: Request) -> Response:
        """Place of another stain of the patient: as a reviewer left it, or as its tissue says."""
        slide, other = self._asked_pair(request)
        pair = self.reviews.pair(slide.slide_id, other.slide_id)
        return JSONResponse(asdict(pair or self._found_pair(slide.slide_id, other.slide_id)))

    async def save_beside(self, request: Request) -> Response:
        """Take how another stain lies; null goes back to what its tissue says."""
        slide, other = self._asked_pair(request)
        pair = pair_of_json(await _body(request))
        await anyio.to_thread.run_sync(self.reviews.save_pair, slide.slide_id, other.slide_id, pair)
        return JSONResponse({"kept": pair is not None})

    def _asked_pair(self, request: Request) -> tuple[ViewedSlide, ViewedSlide]:
        slide, name = self._asked(request), request.path_params["beside"]
        if name not in slide.partners:
            raise NotHereError(f"{slide.slide_id}: no slide of another stain has this name")
        return slide, self.catalogue.slides[name]

    def _found_pair(self, slide_id: str, beside: str) -> SectionPair:
        slides = self.catalogue.slides
        with self.slides.lend(slides[slide_id]) as one, self.slides.lend(slides[beside]) as other:
            return self._search(slide_id, one.version, beside, other.version)

    def _searched(self, slide_id: str, version: str, beside: str, other_version: str) -> SectionPair:
        slides = self.catalogue.slides
        with (
            self.slides.lend(slides[slide_id], version) as one,
            self.slides.lend(slides[beside], other_version) as other,
        ):
            return find_pair(one.zoom.slide, other.zoom.slide, to_scale=one.has_scale and other.has_scale)

    def _keep_up(self) -> None:
        """Read the catalogue anew where its run has gone on."""
        now = self.catalogue.state
        if self._reread is not None and now != self._state:
            self.catalogue, self._state = self._reread(), now

    def _asked(self, request: Request) -> ViewedSlide:
        slide = self.catalogue.slides.get(request.path_params["slide"])
        if slide is None:
            raise NotHereError(f"there is no slide of this name in {self.catalogue.name}")
        return slide

    def _folder(self, slide: ViewedSlide) -> Path:
        folder = self.catalogue.folder(slide.slide_id)
        if folder is None:
            raise NotHereError(f"{slide.slide_id}: has no evidence")
        return folder

    def _bounds(self, slide: ViewedSlide) -> Point:
        with self.slides.lend(slide) as opened:
            return opened.zoom.slide.bounds_origin_l0

    def _tiles_of(self, slide: ViewedSlide) -> TileLayer | None:
        folder = self.catalogue.folder(slide.slide_id)
        file = None if folder is None else folder / TILES_FILE
        if folder is None or file is None or not file.is_file():
            return None
        return self._tiles(folder, file.stat().st_mtime_ns)

    @staticmethod
    def _read_tiles(folder: Path, _modified_ns: int) -> TileLayer | None:
        return tile_layer(folder)

    def _drawn_thumbnail(self, slide_id: str, version: str) -> bytes:
        with self.slides.lend(self.catalogue.slides[slide_id], version) as opened:
            return encoded_jpeg(opened.zoom.overview(_THUMBNAIL_PX))


def make_app(
    catalogue: Catalogue,
    reviews: Reviews,
    *,
    token: str | None = None,
    cookie: str = "he2her2",
    reread: Callable[[], Catalogue] | None = None,
) -> Guard:
    """Return the viewer as an ASGI application.

    Args:
        catalogue: What may be shown.
        reviews: Where reviewers' files lie.
        token: Asked of every request; None asks for a name of this machine instead.
        cookie: Name of the cookie that carries the token.
        reread: Gives the catalogue anew when its run has gone on.
    """
    viewer = Viewer(catalogue, reviews, reread)
    slide = "/api/slides/{slide}"
    routes = [
        Route("/", viewer.page),
        Route("/api/slides", viewer.list_slides),
        Route(slide, viewer.slide),
        Route(f"{slide}/thumbnail", viewer.thumbnail),
        Route(f"{slide}/zoom/{{level:int}}/{{column:int}}_{{row:int}}", viewer.zoom_tile),
        Route(f"{slide}/layers/{{key}}", viewer.layer),
        Route(f"{slide}/samples", viewer.tumour_samples),
        Route(f"{slide}/columns/{{name}}", viewer.tile_column),
        Route(f"{slide}/tiles/{{index:int}}", viewer.scored_tile),
        Route(f"{slide}/regions", viewer.regions, methods=["GET"]),
        Route(f"{slide}/regions", viewer.save_regions, methods=["PUT"]),
        Route(f"{slide}/beside/{{beside}}", viewer.beside, methods=["GET"]),
        Route(f"{slide}/beside/{{beside}}", viewer.save_beside, methods=["PUT"]),
        Route(f"{slide}/verdict", viewer.save_verdict, methods=["PUT"]),
        Mount("/static", StaticFiles(directory=str(files("he2her2.viewer") / "static"))),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        await asyncio.to_thread(viewer.slides.close)

    handlers: dict[Any, Any] = {HTTPException: _http_problem, He2Her2Error: _problem, ClientDisconnect: _nobody}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), token, cookie)


def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, headers=error.headers)


def _problem(_request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
    return JSONResponse({"message": str(error)}, status)


def _nobody(_request: Request, _error: Exception) -> Response:
    """An answer that nobody gets: the page was closed in the middle of its request."""
    return Response(status_code=400)


async def _body(request: Request) -> bytes:
    """The body of a request, of a bounded size whatever its header says."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"more than {MAX_BODY_BYTES >> 20} MB cannot be saved at once")
    return bytes(body)


_PAGES = Environment(loader=PackageLoader("he2her2.viewer"), autoescape=True, undefined=StrictUndefined)
