"""Files for other programs, made from a run's `tiles.h5` and masks alone: GeoJSON for QuPath, heatmap as OME-TIFF."""

from pathlib import Path

from he2her2.errors import EvaluationError
from he2her2.files import atomic
from he2her2.geometry import Size
from he2her2.results.geojson import write_geojson
from he2her2.results.heatmap import write_heatmap
from he2her2.results.run import RunFolder


def export_slide(run: RunFolder, slide_id: str, out: Path, *, all_tiles: bool = False) -> tuple[Path, Path]:
    """Write `<slide_id>.geojson` and `<slide_id>.heatmap.ome.tif`.

    Args:
        run: The run.
        slide_id: The slide.
        out: Folder to write into.
        all_tiles: Every tile in the GeoJSON, not only those that decide.

    Raises:
        EvaluationError: The run lacks the slide, its tiles or its tumour mask, or they are damaged.
        OutputError: The files cannot be written.
    """
    result, tiles, tumour = run.result(slide_id), run.tiles(slide_id), run.rasters(slide_id).tumour
    if result is None or tiles is None or tumour is None:
        raise EvaluationError(f"{run.path}: has no scored tiles of a slide {slide_id}; see its predictions.csv")
    shapes, heatmap = out / f"{slide_id}.geojson", out / f"{slide_id}.heatmap.ome.tif"
    with atomic(shapes) as draft:
        write_geojson(draft, tumour, result.frame, tiles, all_tiles=all_tiles)
    with atomic(heatmap) as draft:
        write_heatmap(draft, tiles, Size(*tumour.shape[::-1]), result.frame)
    return shapes, heatmap
