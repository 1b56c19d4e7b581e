"""Options that would have no effect beside the others are refused in a line, before anything is read or written."""

import pytest

from tests.made_up_runs import MadeUpSlide, write_labels, write_run

LINES = {
    "labels --ihc 2+ --out f.csv": "--out: no effect without a table",
    "labels --ihc 2+ --ihc-column score": "--ihc-column: no effect without a table",
    "labels t.csv --out f.csv --ihc 3+ --json": "--ihc, --json: no effect beside a table",
    "labels t.csv --out f.csv --ratio 2 --copies 4 --no-faint": "--ratio, --copies, --faint: no effect beside a table",
    "split m.csv --out f.csv --repeats 4": "--repeats: no effect without --folds",
    "split m.csv --out f.csv --repeats 1": "--repeats: no effect without --folds",
    "split m.csv --out f --folds 5 --shares 1,1,1": "--shares: no effect beside --folds",
    "manifest her2sc --table t.csv --out f.csv --pattern x": "--pattern: no effect without --slides",
    "manifest herohe --table t.csv --out f.csv --split test": "--split: no effect without --slides",
    "train slides --manifest m.csv --features F --out f --by-site --repeats 4": (
        "--repeats, --by-site: no effect without --folds"
    ),
    "train slides --manifest m.csv --features F --out f --bags B --tile-weights none --annotations-use ignore": (
        "--tile-weights, --annotations-use, --bags: no effect beside --features"
    ),
    "train slides --manifest m.csv --features F --out f --annotation-class x": "--annotation-class: no effect",
    "train slides --manifest m.csv --out f --folds 5": "--folds: no effect without --features",
    "train slides --manifest m.csv --out f --encoder E": "--encoder: no effect without --features",
    "train slides --manifest m.csv --out f --annotations-use ignore --annotation-class x": (
        "--annotation-class: no effect with --annotations-use ignore"
    ),
    "train tumour --patches p.npz --out f --annotation-class x": "--annotation-class: no effect without --manifest",
    "train tumour --patches p.npz --out f --resume --overwrite": "--resume goes on with a training",
    "ablate --train m.csv --test a=m.csv --out f --ihc m.csv --annotations-use replace --weights W": (
        "--weights: no effect with --annotations-use replace"
    ),
    "features s.tif --encoder efficientnet-lite0 --out f --coords C --region tissue": "--region: no effect beside",
    "features s.tif --encoder efficientnet-lite0 --out f --region tissue --annotations A": (
        "--annotations: no effect with --region tissue"
    ),
    "features s.tif --encoder efficientnet-lite0 --out f --region tissue --weights W": "--weights: no effect where",
    "convert F --to clam --out f --mpp 0.5 --manifest m.csv": "--manifest: no effect beside --mpp",
    "test tumour --weights bundled --data p.npz --out f --annotation-class x": "--annotation-class: no effect on",
    "test tumour --weights bundled --data p.h5 --out f --annotation-class x": "--annotation-class: no effect on",
    "plan --correlation 0.3": "--correlation: no effect without --rival",
    "status R --every 3": "--every: no effect without --watch",
}


@pytest.mark.parametrize("line", LINES)
def test_an_option_without_effect_is_refused(command_line, tmp_path, monkeypatch, line):
    """With the option that it goes with; nothing of what is named need be there."""
    monkeypatch.chdir(tmp_path)

    code, out, err = command_line(*line.split())

    assert (code, out) == (2, "")
    assert err.startswith(f"he2her2: {LINES[line]}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_leaks_are_searched_for_among_test_slides_alone(command_line, tmp_path):
    """In another split there is nothing to find."""
    slides = [MadeUpSlide(f"s{k}", status="positive" if k % 2 else "negative", probability=0.5) for k in range(4)]
    labels, run = write_labels(tmp_path / "labels.csv", slides), write_run(tmp_path / "run", slides)

    code, _, err = command_line("evaluate", run, "-m", labels, "-o", tmp_path / "out", "--leaks", "--split", "train")

    assert code == 2
    assert "--leaks: no effect on a CSV of scores, or on split train or val" in err


def test_options_that_have_an_effect_pass(command_line):
    """Beside those that they go with."""
    assert command_line("plan", "--correlation", "0.3", "--rival", "0.7")[0] == 0
    assert command_line("labels", "--ihc", "0", "--faint", "--json")[0] == 0
