"""The wheel alone, in an environment of its own, without the checkout: everything it needs is inside."""

import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from he2her2 import __version__
from tests.conftest import REPOSITORY

LARGEST_WHEEL = 60_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built offline: hatchling is among the developers' tools."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", folder, REPOSITORY], check=True)
    [built] = folder.glob("he2her2-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of a fresh environment that holds the wheel.

    The libraries that it depends on are those of the environment that runs the tests, through a path file: nothing is
    fetched. A path file comes after the environment's own packages and reads no path files in turn, so an editable
    install of the checkout is not found by it.
    """
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin" / "he2her2"


@pytest.fixture
def run(installed, tmp_path):
    """Run the installed command in an empty folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words):
        done = subprocess.run(
            [installed, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_what_it_needs(wheel):
    """Every file of the package (templates, scripts, fonts, weights, the viewer's library), and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
        [about] = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    source = REPOSITORY / "src"
    ours = {
        file.relative_to(source)
        for file in (source / "he2her2").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert not ours - names
    licences = {f"License-File: src/{file}" for file in map(Path.as_posix, ours) if "LICENSE" in file}
    assert len(licences) == 2, "OpenSeadragon's and the font's"
    assert f"Version: {__version__}" in about.splitlines()
    assert licences | {"License-File: LICENSE"} == {line for line in about.splitlines() if "License-File" in line}
    assert {name.parts[0].partition("-")[0] for name in names} == {"he2her2"}
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_demo_report_and_viewer_run_from_the_wheel_alone(run, installed, tmp_path):
    """As after `pip install he2her2-*.whl`, far from the checkout."""
    code = "import he2her2, sys; sys.stdout.write(he2her2.__file__)"
    where = subprocess.run(
        [installed.parent / "python", "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    told = run("demo", "--out", "demo-run", "--threads", "2").splitlines()
    report, viewer = (line.split(maxsplit=1) for line in told[-2:])

    assert Path(where).is_relative_to(installed.parents[1])
    assert report == ["report", str(Path("demo-run") / "report" / "cases" / "phantom.html")]
    assert viewer == ["viewer", f"{installed} view demo-run"]
    assert "HER2 positive" in (tmp_path / report[1]).read_text("utf-8")

    (tmp_path / report[1]).unlink()
    assert run("report", "demo-run").splitlines()[-1] == f"report {report[1]}"
    assert (tmp_path / report[1]).is_file()

    with subprocess.Popen(
        [*viewer[1].split(), "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        address = server.stdout.readline().split()[1]
        try:
            with urllib.request.urlopen(address) as page:
                html = page.read().decode()
        finally:
            server.terminate()
    assert "openseadragon" in html.lower()
