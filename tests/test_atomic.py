"""Files and folders appear whole or not at all."""

import pytest

from he2her2.errors import OutputError
from he2her2.files import atomic


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_stopped_write_leaves_nothing(tmp_path, stop):
    """Neither the file nor its draft is there, and an older file stays as it was."""
    target = tmp_path / "result.txt"
    target.write_text("old")

    def write_half():
        with atomic(target) as draft:
            draft.write_text("half")
            raise stop

    with pytest.raises(stop):
        write_half()

    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_folder_replaces_a_folder(tmp_path):
    """Nothing of the old one is left in it."""
    target = tmp_path / "slide"
    target.mkdir()
    (target / "old.txt").touch()

    with atomic(target) as draft:
        draft.mkdir()
        (draft / "new.txt").touch()

    assert [path.name for path in tmp_path.rglob("*")] == ["slide", "new.txt"]


def test_a_place_that_is_a_file_is_refused(tmp_path):
    """The message names the target."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match=r"result\.txt"), atomic(tmp_path / "file" / "result.txt") as draft:
        draft.touch()


def test_the_ending_stays(tmp_path):
    """Writers that choose their format by the ending see the right one."""
    with atomic(tmp_path / "picture.png") as draft:
        assert draft.suffix == ".png"
        draft.touch()
