"""What every test may ask for."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from he2her2.cli import run_here
from tests.tissue_slides import WEIGHTS_VARIABLE, write_untrained

REPOSITORY = Path(__file__).parent.parent

settings.register_profile(
    "he2her2",
    deadline=None,  # the first use of a codec or of torch is slow
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("he2her2")


def pytest_configure(config):
    """Let Ctrl-C count also in the background of a shell, and draw untrained networks once for all workers.

    Each command would load torch for that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(config.option, "numprocesses", None):
        folder = tempfile.mkdtemp(prefix="he2her2-untrained-")
        config.add_cleanup(partial(shutil.rmtree, folder))
        os.environ[WEIGHTS_VARIABLE] = folder
        write_untrained(Path(folder))


def pytest_collection_finish():
    """Keep all that collecting has loaded out of the garbage collector's rounds: it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = (REPOSITORY / os.environ.get("HE2HER2_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set HE2HER2_DATA")
    return folder


_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # its event loop must be closed before other modules open theirs
def browser():
    """A real Chromium; tests that need it are skipped where there is none."""
    executable = os.environ.get("HE2HER2_CHROMIUM") or next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if executable is None:
        pytest.skip("no Chromium: install it, or name it in HE2HER2_CHROMIUM")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  only where there is a Chromium

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run a command line in this process; gives its exit code, standard output and standard error."""
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["he2her2", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_here()
        return stop.value.code or 0, *capsys.readouterr()

    yield run
    for number, answer in answers.items():
        signal.signal(number, answer)
