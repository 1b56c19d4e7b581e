"""The recipes of docs/thousands-of-slides.md, run without SLURM and Kubernetes around them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.tissue_slides import QUICK, write_tissue

yaml = pytest.importorskip("yaml")

PAGE = (REPOSITORY / "docs" / "thousands-of-slides.md").read_text("utf-8")
PARTS = 2


def blocks(kind):
    """Fenced blocks of the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def shell(tmp_path):
    """Run a script in a folder with a cohort of two slides, with quick settings; gives what it printed."""
    for name in "ab":
        write_tissue(tmp_path / f"{name}.svs")
    (tmp_path / "cohort.csv").write_text("slide_id,path,patient_id\na,a.svs,P1\nb,b.svs,P2\n")
    command = tmp_path / "bin" / "he2her2"
    command.parent.mkdir()
    quick = " ".join(QUICK)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m he2her2 "$@" --workers 0 {quick}\n')
    command.chmod(0o755)

    def run(script, **environment):
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def rows(folder: Path):
    return [line.split(",")[0] for line in (folder / "run" / "predictions.csv").read_text().splitlines()[1:]]


def test_the_array_job_of_slurm(shell, tmp_path):
    """Each task its share, into one folder."""
    (script,) = [text for text in blocks("sh") if "#SBATCH" in text]
    for task in range(1, PARTS + 1):
        shell(script.replace("/10", f"/{PARTS}"), SLURM_ARRAY_TASK_ID=str(task))

    assert rows(tmp_path) == ["a", "b"]


def test_the_indexed_job_of_kubernetes(shell, tmp_path):
    """Its indices begin with 0, our parts with 1."""
    (job,) = map(yaml.safe_load, blocks("yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completions"] == 10
    (script,) = container["args"]
    shell(script.replace("/10", f"/{PARTS}"), JOB_COMPLETION_INDEX="0")

    assert rows(tmp_path) == ["a"]


def test_every_command_of_the_page_is_one(command_line):
    """Its options are those that the command has."""
    commands = [
        line for text in blocks("sh") for line in text.splitlines() if "he2her2 " in line and "pip " not in line
    ]
    assert len(commands) > 8
    for line in commands:
        words = line[line.index("he2her2 ") :].partition("#")[0].split()
        verb = words[1]
        _, text, _ = command_line(verb, *([words[2]] if verb == "manifest" else []), "--help")
        options = [word for word in words if word.startswith("--")]
        assert not [option for option in options if option not in text], line


def test_the_cluster_of_the_page_is_python():
    """It compiles; dask-jobqueue itself needs a batch system."""
    (text,) = blocks("python")
    compile(text, "page", "exec")
