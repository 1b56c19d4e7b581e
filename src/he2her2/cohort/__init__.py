"""Cohorts: the loop over slides, its workers and ledger, and the search for leaks."""

from he2her2.cohort.annotations import annotation_lines
from he2her2.cohort.claims import Claims, commands_at_work, read_claims
from he2her2.cohort.crew import Crew, Report, SlideJob, ThisProcess
from he2her2.cohort.dask_workers import DaskWorkers
from he2her2.cohort.engine import SlideEngine, require_all
from he2her2.cohort.feature_worker import FeatureFile, FeatureStore, FeatureWorker
from he2her2.cohort.ihc_worker import IhcWorker
from he2her2.cohort.leaks import NOT_LOOKED_FOR, UNREAD, find_leaks, refuse_chosen_with, refuse_leaks
from he2her2.cohort.ledger import Ledger
from he2her2.cohort.likeness import ALIKE, THUMBNAIL_PX, alike_pairs, likeness, print_of
from he2her2.cohort.local_workers import LocalWorkers, usual_number
from he2her2.cohort.remote_slides import Staging, fetch_manifest, is_pattern, sweep_staged
from he2her2.cohort.run_status import RunStatus, read_status
from he2her2.cohort.slide_worker import SlideWork, SlideWorker, networks_digest
from he2her2.cohort.sources import SlideSources, find_slides, is_table
from he2her2.cohort.supervisor import Limits, SlideOutcome, Supervisor
from he2her2.cohort.tasks import SlideTask, TaskOutcome, Worker

__all__ = [
    "ALIKE",
    "NOT_LOOKED_FOR",
    "THUMBNAIL_PX",
    "UNREAD",
    "Claims",
    "Crew",
    "DaskWorkers",
    "FeatureFile",
    "FeatureStore",
    "FeatureWorker",
    "IhcWorker",
    "Ledger",
    "Limits",
    "LocalWorkers",
    "Report",
    "RunStatus",
    "SlideEngine",
    "SlideJob",
    "SlideOutcome",
    "SlideSources",
    "SlideTask",
    "SlideWork",
    "SlideWorker",
    "Staging",
    "Supervisor",
    "TaskOutcome",
    "ThisProcess",
    "Worker",
    "alike_pairs",
    "annotation_lines",
    "commands_at_work",
    "fetch_manifest",
    "find_leaks",
    "find_slides",
    "is_pattern",
    "is_table",
    "likeness",
    "networks_digest",
    "print_of",
    "read_claims",
    "read_status",
    "refuse_chosen_with",
    "refuse_leaks",
    "require_all",
    "sweep_staged",
    "usual_number",
]
