"""Cohorts: the one loop over slides, its ledger, the workers of prediction, and the search for leaks."""

from he2her2.cohort.annotations import annotation_lines
from he2her2.cohort.engine import SlideEngine, SlideTask, TaskOutcome, Worker, require_all
from he2her2.cohort.feature_worker import FeatureFile, FeatureRegion, FeatureStore, FeatureWorker
from he2her2.cohort.leaks import UNREAD, find_leaks, refuse_chosen_with, refuse_leaks
from he2her2.cohort.ledger import Ledger, ResultStore
from he2her2.cohort.likeness import ALIKE, THUMBNAIL_PX, likeness, print_of
from he2her2.cohort.slide_worker import SlideWorker
from he2her2.cohort.sources import SlideSources, annotation_file, find_slides

__all__ = [
    "ALIKE",
    "THUMBNAIL_PX",
    "UNREAD",
    "FeatureFile",
    "FeatureRegion",
    "FeatureStore",
    "FeatureWorker",
    "Ledger",
    "ResultStore",
    "SlideEngine",
    "SlideSources",
    "SlideTask",
    "SlideWorker",
    "TaskOutcome",
    "Worker",
    "annotation_file",
    "annotation_lines",
    "find_leaks",
    "find_slides",
    "likeness",
    "print_of",
    "refuse_chosen_with",
    "refuse_leaks",
    "require_all",
]
