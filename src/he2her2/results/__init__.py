"""Results: a slide's `SlideResult`, the folder of a run and its evidence; written and read here only."""

from he2her2.results.evidence import Evidence, prediction_evidence, segmentation_evidence
from he2her2.results.export import export_slide
from he2her2.results.failure_records import FailureRecords
from he2her2.results.made_of import FileStamp, MadeOf, SlideInputs
from he2her2.results.notes import LIBRARIES, NetworkNote, describe_environment
from he2her2.results.other_folders import RUN_FILE, refuse_other_folder
from he2her2.results.overlay import scale_bar
from he2her2.results.palette import (
    BLUR_COLOUR,
    PEN_COLOUR,
    SCORE_COLOURS,
    SELECTED_COLOUR,
    TISSUE_COLOUR,
    TUMOUR_COLOUR,
    score_colours,
)
from he2her2.results.patients import PatientResult, RunPatient
from he2her2.results.rasters import (
    RasterFrame,
    SlideRasters,
    read_frame,
    read_map,
    read_mask,
    read_samples,
    score_raster,
)
from he2her2.results.run import Run, RunDescription, RunFolder, open_run, plan_run, read_description
from he2her2.results.run_tables import FAILURES_FILE, PREDICTIONS_FILE, read_planned, slides_with_result
from he2her2.results.slide_folder import PREDICTION, SEGMENTATION, SlideFolders
from he2her2.results.slide_result import (
    RESEARCH_USE_NOTICE,
    Her2Finding,
    SlideResult,
    result_of_record,
    result_to_record,
)
from he2her2.results.tables import Failure, PredictedSlide, read_failures, write_failures
from he2her2.results.tiles_h5 import TILES_FILE, ScoredTiles, read_tile_columns

__all__ = [
    "BLUR_COLOUR",
    "FAILURES_FILE",
    "LIBRARIES",
    "PEN_COLOUR",
    "PREDICTION",
    "PREDICTIONS_FILE",
    "RESEARCH_USE_NOTICE",
    "RUN_FILE",
    "SCORE_COLOURS",
    "SEGMENTATION",
    "SELECTED_COLOUR",
    "TILES_FILE",
    "TISSUE_COLOUR",
    "TUMOUR_COLOUR",
    "Evidence",
    "Failure",
    "FailureRecords",
    "FileStamp",
    "Her2Finding",
    "MadeOf",
    "NetworkNote",
    "PatientResult",
    "PredictedSlide",
    "RasterFrame",
    "Run",
    "RunDescription",
    "RunFolder",
    "RunPatient",
    "ScoredTiles",
    "SlideFolders",
    "SlideInputs",
    "SlideRasters",
    "SlideResult",
    "describe_environment",
    "export_slide",
    "open_run",
    "plan_run",
    "prediction_evidence",
    "read_description",
    "read_failures",
    "read_frame",
    "read_map",
    "read_mask",
    "read_planned",
    "read_samples",
    "read_tile_columns",
    "refuse_other_folder",
    "result_of_record",
    "result_to_record",
    "scale_bar",
    "score_colours",
    "score_raster",
    "segmentation_evidence",
    "slides_with_result",
    "write_failures",
]
