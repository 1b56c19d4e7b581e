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
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m he2her2 "$@" $WORKERS {quick}\n')
    command.chmod(0o755)

    def run(script, *, workers="--workers 0", **environment):
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "WORKERS": workers} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
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


@pytest.fixture
def slurm(tmp_path):
    """A batch system that runs each job here and now; gives the folder of its commands."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    job = place / "job"  # a copy: dask-jobqueue deletes its script when sbatch returns
    for name, script in (
        ("sbatch", f'cp "$1" "{job}"; setsid bash "{job}" > "{job}.log" 2>&1 &\necho "Submitted batch job $!"'),
        ("scancel", 'kill -- "-$1"'),
    ):
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    return place


def test_the_cluster_of_slurm_by_dask_jobqueue(shell, slurm, tmp_path):
    """Its jobs ask for what the page says, and their workers take the slides."""
    pytest.importorskip("dask_jobqueue")
    (script,) = blocks("python")
    (command,) = (line for text in blocks("sh") for line in text.splitlines() if "tcp://login-node" in line)
    small = {"cores=8": "cores=1", '"32GB"': '"1GB"', "8786": "0", "scale(10)": "scale(1)"}
    ask = "print(cluster.job_script())\nprint('end', flush=True)\ninput("
    script = script.replace("input(", ask, 1).replace("SLURMCluster(\n", 'SLURMCluster(\n    interface="lo",\n', 1)
    for word, other in small.items():
        assert word in script
        script = script.replace(word, other)
    environment = os.environ | {"PATH": f"{slurm}{os.pathsep}{os.environ['PATH']}"}
    started = [sys.executable, "-c", script]
    with subprocess.Popen(
        started, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        address, *job = iter(cluster.stdout.readline, "end\n")
        try:
            shell(command.replace("tcp://login-node:8786", address.strip()), workers="")
        finally:
            cluster.communicate("\n", timeout=60)

    assert {line.strip() for line in job if line.startswith("#SBATCH")} >= {
        "#SBATCH --cpus-per-task=1", "#SBATCH --mem=954M", "#SBATCH -t 12:00:00", "#SBATCH --gres=gpu:1",
    }  # fmt: skip
    assert rows(tmp_path) == ["a", "b"]
