"""Evaluation of a predict run against its labels: figures with intervals, decision rules, audits, page and tables."""

from he2her2.evaluation.audits import SAME_PROBABILITY, redraw_blocks
from he2her2.evaluation.cases import Cases, join
from he2her2.evaluation.comparison import ComparisonQuestion, compare_folders
from he2her2.evaluation.comparison_folder import COMPARISON_FILE, comparison_lines, write_comparison
from he2her2.evaluation.evaluation import evaluate, store_rules
from he2her2.evaluation.folder import WrittenEvaluation, check_evaluation_folder, read_evaluation, write_evaluation
from he2her2.evaluation.leakage import check_weights
from he2her2.evaluation.paper_tables import (
    TABLE_1,
    TABLE_1_ACCURACY,
    PaperAggregation,
    PaperCohort,
    PaperColumn,
    PaperRow,
    paper_row,
)
from he2her2.evaluation.planning import Plan, needed, plan_lines, shown_by
from he2her2.evaluation.question import Question
from he2her2.evaluation.recalibration import (
    patients_of_site,
    recalibrate_weights,
    recalibration_lines,
    write_recalibrated,
)
from he2her2.evaluation.report import evaluation_lines
from he2her2.evaluation.score_tables import (
    ScoreReading,
    open_predictions,
    read_study_manifest,
)
from he2her2.evaluation.slide_properties import SlideProperties, slide_properties
from he2her2.evaluation.summary import summarise
from he2her2.evaluation.thresholds import Budgets

__all__ = [
    "COMPARISON_FILE",
    "SAME_PROBABILITY",
    "TABLE_1",
    "TABLE_1_ACCURACY",
    "Budgets",
    "Cases",
    "ComparisonQuestion",
    "PaperAggregation",
    "PaperCohort",
    "PaperColumn",
    "PaperRow",
    "Plan",
    "Question",
    "ScoreReading",
    "SlideProperties",
    "WrittenEvaluation",
    "check_evaluation_folder",
    "check_weights",
    "compare_folders",
    "comparison_lines",
    "evaluate",
    "evaluation_lines",
    "join",
    "needed",
    "open_predictions",
    "paper_row",
    "patients_of_site",
    "plan_lines",
    "read_evaluation",
    "read_study_manifest",
    "recalibrate_weights",
    "recalibration_lines",
    "redraw_blocks",
    "shown_by",
    "slide_properties",
    "store_rules",
    "summarise",
    "write_comparison",
    "write_evaluation",
    "write_recalibrated",
]
