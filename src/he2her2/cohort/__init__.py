"""Cohorts: the one loop over slides, its ledger, the workers of prediction, and the search for leaks."""

from he2her2.cohort.engine import SlideEngine, SlideTask, TaskOutcome, Worker, require_all
from he2her2.cohort.leaks import UNREAD, find_leaks, refuse_chosen_with, refuse_leaks
from he2her2.cohort.ledger import Ledger, ResultStore
from he2her2.cohort.likeness import ALIKE, THUMBNAIL_PX, likeness, print_of
from he2her2.cohort.listing import list_slides
from he2her2.cohort.slides import SlideWorker, slide_tasks

__all__ = [
    "ALIKE",
    "THUMBNAIL_PX",
    "UNREAD",
    "Ledger",
    "ResultStore",
    "SlideEngine",
    "SlideTask",
    "SlideWorker",
    "TaskOutcome",
    "Worker",
    "find_leaks",
    "likeness",
    "list_slides",
    "print_of",
    "refuse_chosen_with",
    "refuse_leaks",
    "require_all",
    "slide_tasks",
]
