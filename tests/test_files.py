"""Files and folders appear whole or not at all, with the bytes that older files have."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from he2her2.csv_files import csv_text, read_csv, write_csv
from he2her2.errors import OutputError
from he2her2.files import atomic, digest, read_json, sweep_drafts, write_json, write_text


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


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


def test_a_name_that_is_too_long_is_an_output_error(tmp_path):
    """Like other places that cannot be written."""
    with pytest.raises(OutputError, match="too long"):
        write_text(tmp_path / (240 * "x"), "text")


def test_the_ending_stays(tmp_path):
    """Writers that choose their format by the ending see the right one."""
    with atomic(tmp_path / "picture.png") as draft:
        assert draft.suffix == ".png"
        draft.touch()


def test_json_is_written_in_clear_and_read_back(tmp_path):
    """A name keeps its letters, or becomes escapes where its bytes need not be Unicode."""
    clear, escaped = tmp_path / "clear.json", tmp_path / "escaped.json"
    write_json(clear, {"site": "Köln", "mpp": 0.5})
    write_json(escaped, {"site": "K\udcf6ln"}, ascii_only=True)

    assert clear.read_bytes() == '{\n  "site": "Köln",\n  "mpp": 0.5\n}\n'.encode()
    assert escaped.read_bytes() == b'{\n  "site": "K\\udcf6ln"\n}\n'
    assert read_json(clear) == {"site": "Köln", "mpp": 0.5}


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    """Every such file is a ValueError, however it is broken."""
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(ValueError, match=r"."):
        read_json(file)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_keeps_its_line_ends_and_reads_back(tmp_path, end):
    """Cells with commas, quotes and line ends survive; a missing one is empty; a column too many is a bug."""
    file = tmp_path / "x.csv"
    write_csv(file, ("a", "b"), [{"a": 'x, "y"\r\nz'}, (1, 2.5)], line_end=end)

    assert file.read_bytes() == f'a,b{end}"x, ""y""\r\nz",{end}1,2.5{end}'.encode()
    assert read_csv(file) == [{"a": 'x, "y"\r\nz', "b": ""}, {"a": "1", "b": "2.5"}]
    with pytest.raises(ValueError, match="c"):
        write_csv(file, ("a",), [{"c": 1}])


def test_a_digest_does_not_depend_on_the_order_of_keys():
    """Digests of old records stay valid: their bytes are pinned."""
    found = digest("1.0", {"b": 1, "a": (2, 3)}, Size(4, 5))

    assert found == digest("1.0", {"a": [2, 3], "b": 1}, {"height": 5, "width": 4})
    assert found == "930d1a9686f65fac93f4db637bf5f176a0b540bf806bbaa263269460242b88a4"


@pytest.mark.parametrize("text", ["=cmd()", "+1+1", "-2*3", "@SUM(A1)", "\t=1", "'=1", "''-x", "\uff1dcmd()"])
def test_a_spreadsheet_computes_nothing(tmp_path, text):
    """What looks like a formula begins with an apostrophe in the file, and reads back as it was."""
    write_csv(tmp_path / "x.csv", ("a", text), [(text, 1), {"a": text}])

    assert [row["a"] for row in read_csv(tmp_path / "x.csv")] == [text, text]
    assert [*read_csv(tmp_path / "x.csv")[0]] == ["a", text]
    assert [line[:1].strip('"') or line[1] for line in csv_text((text,), [(text,)]).splitlines()] == ["'", "'"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.sampled_from(["\n", "\r\n"]))
@example("\r", "\n")
@example("\r", "\r\n")
def test_any_text_reads_back_from_csv(tmp_path, text, line_end):
    """Apostrophes, quotes and line ends, too: a lone carriage return was lost, or broke the row in two."""
    write_csv(tmp_path / "x.csv", ("a", "b"), [(text, text)], line_end=line_end)

    assert read_csv(tmp_path / "x.csv") == [{"a": text, "b": text}]


@pytest.mark.parametrize("cell", ["-0.5", "+3", "-", "1+", "2+", "a=b", "'s-Hertogenbosch", -0.5])
def test_numbers_and_scores_are_written_as_they_are(cell):
    """Only formulas are marked."""
    assert csv_text(("a",), [(cell,)]) == f"a\n{cell}\n"


def test_a_name_that_is_no_unicode_can_be_written(tmp_path):
    """File systems allow any bytes."""
    write_csv(tmp_path / "x.csv", ("a",), [("b\udcfcd.svs",)])
    write_json(tmp_path / "x.json", {"a": "b\udcfcd.svs"})

    assert read_csv(tmp_path / "x.csv") == [{"a": "b\\udcfcd.svs"}]
    assert read_json(tmp_path / "x.json") == {"a": "b\udcfcd.svs"}


def test_drafts_of_a_killed_process_are_swept(tmp_path):
    """At the next start; what a living process writes stays, and so does everything else."""
    script = (
        "import os, signal; from pathlib import Path; from he2her2.files import atomic\n"
        f"with atomic(Path({str(tmp_path)!r}) / 'a') as draft:\n"
        "    draft.mkdir(); (draft / 'x').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    (tmp_path / ".hidden").touch()
    (tmp_path / ".draft-of-mine").touch()
    left = sorted(path.name for path in tmp_path.iterdir())

    with atomic(tmp_path / "b") as draft:
        draft.touch()
        sweep_drafts(tmp_path)
        assert draft.exists()

    assert len(left) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".draft-of-mine", ".hidden", "b"]


def test_the_first_writing_in_a_folder_sweeps_it(tmp_path):
    """A draft of an evaluation, a picture or a table that a killed command left, wherever it lies."""
    script = (
        "import os, signal; from pathlib import Path; from he2her2.files import atomic\n"
        f"with atomic(Path({str(tmp_path)!r}) / 'a') as draft:\n"
        "    draft.mkdir(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(list(tmp_path.iterdir())) == 1

    write_json(tmp_path / "b.json", {})

    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_row_of_another_length_is_damage(tmp_path, row):
    """Neither a missing cell nor one too many has a column."""
    (tmp_path / "a.csv").write_text(f"a,b\n1,2\n{row}\n")

    with pytest.raises(ValueError, match=r"line 3 has . cells?, the heading 2"):
        read_csv(tmp_path / "a.csv")


def test_drafts_of_another_machine_are_swept_after_a_day(tmp_path):
    """Whether its process lives cannot be seen from here."""
    draft = tmp_path / ".draft-00000000-1-00000000.x"
    draft.touch()

    sweep_drafts(tmp_path)
    assert draft.exists()
    os.utime(draft, (0, 0))
    sweep_drafts(tmp_path)
    assert not draft.exists()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo])
def test_a_record_that_never_ends_is_not_read(tmp_path, make):
    """A link to a device fills the memory, and a pipe is waited for, in a folder that somebody passed on."""
    make(tmp_path / "card.json")

    with pytest.raises(ValueError, match="no ordinary file"):
        read_json(tmp_path / "card.json")
