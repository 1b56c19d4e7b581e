"""The folder of a training: never two trainings in one, and no resuming with other settings."""

import json
from dataclasses import replace

import pytest

from he2her2.cohort import SlideTask
from he2her2.config import Config, Runtime, Selection
from he2her2.errors import ConfigError, ManifestError, OutputError
from he2her2.training.run import Execution, begin_run, fingerprint, fingerprint_slides, undone_if_refused
from he2her2.training.settings import Augmentation, Hardware, TumourTraining

INPUTS = {"patches": {"file": "a.npz", "sha256": "0"}, "folds": 2}


def begin(folder, settings=TumourTraining(), config=Config(), inputs=INPUTS, patients=None, **options):  # noqa: B008  # frozen
    kind = options.pop("kind", "tumour")
    begin_run(
        folder,
        kind,
        Execution(Hardware(), ["he2her2", "train", "tumour"], **options),
        config=config,
        settings=settings,
        inputs=inputs,
        patients=patients,
    )


def test_it_is_described(tmp_path):
    """Command, settings of method and training, inputs, versions and hardware, and who was seen."""
    begin(tmp_path / "run", patients={"training_patients": ["ab"]})

    found = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert found["kind"] == "tumour"
    assert found["training"]["epochs"] == TumourTraining().epochs
    assert found["config"]["selection"]["n_tiles"] == 300
    assert found["inputs"] == INPUTS
    assert found["training_patients"] == ["ab"]
    assert {"torch", "lightning", "python", "numpy"} <= found["versions"].keys()
    assert found["hardware"]["cores"]
    assert found["run_on"]["accelerator"] == "auto"


def test_a_second_training_is_refused(tmp_path):
    """Unless it is the same one going on, or the first may go."""
    begin(tmp_path)

    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        begin(tmp_path)
    begin(tmp_path, resume=True)


def test_overwriting_leaves_nothing_of_the_old_training(tmp_path):
    """Its checkpoints could otherwise be resumed, and its results read as the new one's; what is not its own stays."""
    begin(tmp_path)
    for name in ("checkpoints", "logs", "weights", "folds", "teachers", "soup", "repeats", "out-of-fold", "mine"):
        (tmp_path / name).mkdir()
    for name in ("report.md", "predictions.csv", "val_predictions.csv", "slides_left_out.csv"):
        (tmp_path / name).write_text("of the old one")

    begin(tmp_path, replace(TumourTraining(), epochs=3), overwrite=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["training"]["epochs"] == 3


@pytest.mark.parametrize(("left", "kept"), [("bags", False), ("logs", True)])
def test_a_training_that_was_refused_may_be_begun_with_other_data(tmp_path, left, kept):
    """It had to be overwritten, although it had never begun; what has trained keeps its description."""
    begin(tmp_path)
    (tmp_path / left).mkdir()

    with pytest.raises(ManifestError), undone_if_refused(tmp_path):
        raise ManifestError(["no tiles"])

    assert (tmp_path / "run.json").exists() == kept


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize(("kind", "name"), [("tumour", "weights"), ("tumour", "checkpoints"), ("ablation", "tests")])
def test_folders_of_somebody_else_are_neither_replaced_nor_resumed(tmp_path, kind, name, options):
    """Only a `run.json` says that a folder of such a name is a training's."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")

    with pytest.raises(OutputError, match=f"holds {name}, and no run.json"):
        begin(tmp_path, kind=kind, **options)
    assert (tmp_path / name / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "run.json").exists()


def test_overwriting_another_kind_of_training_takes_no_other_folders(tmp_path):
    """An ablation takes the weights of the training before it, and not the tests of somebody else."""
    begin(tmp_path)
    for name in ("weights", "tests"):
        (tmp_path / name).mkdir()

    with pytest.raises(OutputError, match="holds tests, and no run"):
        begin(tmp_path, kind="ablation", overwrite=True)
    assert (tmp_path / "tests").is_dir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": replace(TumourTraining(), epochs=3)}, "training.epochs was 16, now 3"),
        ({"settings": TumourTraining(augment=Augmentation(stain=0.3))}, "training.augment.stain was 0.2, now 0.3"),
        ({"config": Config(selection=Selection(n_tiles=5))}, "config.selection.n_tiles was 300, now 5"),
        ({"inputs": INPUTS | {"folds": 3}}, "inputs.folds was 2, now 3"),
        ({"inputs": INPUTS | {"patches": {"file": "a.npz", "sha256": "1"}}}, "inputs.patches.sha256 was 0, now 1"),
    ],
)
def test_resuming_another_training_names_the_difference(tmp_path, change, words):
    """Settings of the method, of the training, and the data itself."""
    begin(tmp_path)

    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, resume=True, **change)
    assert words in str(caught.value)
    assert str(caught.value).count(" was ") >= 1


def test_slides_are_known_by_their_size_and_annotations(tmp_path):
    """They may lie elsewhere; a corrected annotation makes another training."""
    tasks = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in ("s.svs", "s.geojson"):
            (tmp_path / place / name).write_text("as it was")
        tasks.append(SlideTask("s", tmp_path / place / "s.svs", annotations=tmp_path / place / "s.geojson"))

    assert fingerprint_slides(tasks[:1]) == fingerprint_slides(tasks[1:])
    for name in ("s.geojson", "s.svs"):
        before = fingerprint_slides(tasks[:1])
        (tmp_path / "here" / name).write_text("corrected now")
        assert fingerprint_slides(tasks[:1]) != before


def test_how_the_work_is_done_may_change(tmp_path):
    """Other hardware, other threads: the same training."""
    begin(tmp_path)

    begin(tmp_path, config=Config(runtime=Runtime(threads=7)), resume=True)


def test_results_of_another_command_are_never_touched(tmp_path):
    """Not even with --overwrite."""
    (tmp_path / "run.json").write_text('{"digest": "0"}')

    with pytest.raises(OutputError, match="another command"):
        begin(tmp_path, overwrite=True)


def test_a_damaged_description_is_refused(tmp_path):
    """Nobody knows what would be resumed."""
    (tmp_path / "run.json").write_text("{")

    with pytest.raises(OutputError, match="cannot be understood"):
        begin(tmp_path, resume=True)


def test_a_file_is_known_by_its_content(tmp_path):
    """It may be moved, not changed."""
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_text("1")
    before = fingerprint(one)
    one.rename(other)

    after = fingerprint(other)
    assert before is not None
    assert after is not None
    assert before["sha256"] == after["sha256"]
    assert fingerprint(None) is None
