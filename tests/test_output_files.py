"""What a command writes replaces no slide, no input and no folder."""

import shutil

import pytest

from he2her2.errors import OutputError
from he2her2.files import check_output_file
from tests.slide_files import SlideSpec, synthetic_pixels, write_slide

TABLE = "id,IHC\n1,2+\n"


@pytest.fixture
def slide(tmp_path):
    """A slide whose bytes are known."""
    return write_slide(tmp_path / "s.svs", [synthetic_pixels(300, 200)], SlideSpec())


def test_a_slide_is_not_replaced_by_a_table(tmp_path, slide, command_line):
    """As where the shell fills in the names of slides after --out."""
    before = slide.read_bytes()
    (tmp_path / "t.csv").write_text(TABLE)
    other = shutil.copy(slide, tmp_path / "s2.svs")

    for command in (
        ("labels", tmp_path / "t.csv", "--out", slide),
        ("score-ihc", other, "--out", slide),
        ("score-ihc", slide, "--out", slide),
        ("score-ihc", slide, "--out", tmp_path),
    ):
        code, _, error = command_line(*command)
        assert code == 2, command
        assert "choose another --out" in error or "is a folder; give a file" in error
        assert error.count("\n") == 1
    assert slide.read_bytes() == before


def test_an_input_is_not_replaced(tmp_path, command_line):
    """Under whatever name; a table of before is."""
    table = tmp_path / "t.csv"
    table.write_text(TABLE)
    (tmp_path / "link.csv").symlink_to(table)

    for out in (table, tmp_path / "link.csv"):
        assert command_line("labels", table, "--out", out)[0] == 2
    assert table.read_text() == TABLE
    for _ in range(2):
        assert command_line("labels", table, "--out", tmp_path / "new.csv")[0] == 0


def test_where_nothing_can_be_written_is_said_first(tmp_path):
    """A folder that is a file."""
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="is a file; choose another --out"):
        check_output_file(tmp_path / "file" / "out.csv")
    check_output_file(tmp_path / "new" / "folder" / "out.csv")
