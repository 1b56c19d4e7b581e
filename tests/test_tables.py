"""Tables as people have them: read right or refused in a line, columns matched loosely, missing names refused."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2 import manifest as manifests
from he2her2.datasets import read_her2sc, read_herohe, read_tcga_brca
from he2her2.errors import ManifestError
from he2her2.labels import Her2Status, IhcScore, IshCounts
from he2her2.manifest import (
    check_consistent,
    count_manifest,
    is_blank,
    label_tests,
    names_nothing,
    near_misses,
    near_patients,
    read_manifest,
    read_table,
)
from he2her2.manifest.near_ids import loose_name

PLAIN = "slide_id,path,patient_id,ihc_score\ns0,s0.svs,P0,3+\ns1,s1.svs,P1,0\n"


@pytest.fixture
def table(tmp_path):
    """Write a table; gives its path."""

    def write(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def slides(path):
    """Slide, patient and score of each row of a manifest without problems."""
    manifest = read_manifest(path)
    assert manifest.problems == ()
    return [(row.slide_id, row.patient_id, row.ihc_score) for row in manifest.rows]


def refusal(path, read=read_manifest):
    """The problems of a table, less its name."""
    with pytest.raises(ManifestError) as caught:
        read(path)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


@pytest.mark.parametrize(
    "heading", ["Paciente", "N° patient", "Nº patient", "Numéro patient", "Patienten-ID", "Patient Nr."]
)
def test_a_patient_has_a_heading_in_other_languages(table, heading):
    """As the export of a hospital there has it."""
    assert slides(table(PLAIN.replace("patient_id", heading))) == slides(table(PLAIN))


def test_a_name_that_is_too_long_for_a_folder_is_refused_before_prediction(table):
    """Results lie in a folder of the slide's name."""
    name = "s" * 201
    manifest = read_manifest(table(PLAIN.replace("s0,", f"{name},", 1)))

    (problem,) = manifest.problems
    assert problem.startswith(f"line 2: slide_id: '{name[:80]}'... has 201 bytes, more than the 200 ")


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        '"sep=;"\n' + PLAIN.replace(",", ";"),
        "HER2 cohort 2024,,,\n" + PLAIN,
        "HER2 cohort 2024\n\nby the laboratory\n" + PLAIN,
        "\n\n,,,\n" + PLAIN,
        "#version 3\n# of 2024\n" + PLAIN,
        PLAIN.replace("\n", ",,,\n"),
        PLAIN.replace("P0,3+\n", "P0,3+,,,\n"),
        PLAIN + ",,,\n\n",
        PLAIN.replace(",", "|"),
        PLAIN.replace("\n", "\r"),
        PLAIN.encode("utf-16"),
        PLAIN.replace("3+", "3.0").replace(",0\n", ",0.0\n"),
        PLAIN.replace(",", ";").replace("3+", "3,0"),
        PLAIN + PLAIN,
        PLAIN.replace("slide_id", "#,slide_id").replace("\ns", "\n7,s"),
        PLAIN.replace("slide_id", ",slide_id").replace("\ns", "\n7,s"),
    ],
    ids=[
        "sep=", "sep= in quotes", "title", "titles without commas", "blank lines", "comments", "empty columns",
        "surplus empty cells", "blank rows at the end", "bars", "carriage returns", "UTF-16", "scores as 3.0",
        "scores as 3,0", "joined files", "a column called #", "an index without a name",
    ],
)  # fmt: skip
def test_a_table_is_read_as_people_have_it(table, text):
    """The same slides, whatever stands around them."""
    found = slides(table(text))

    assert found[:2] == [("s0", "P0", IhcScore.THREE), ("s1", "P1", IhcScore.ZERO)]
    assert set(found) == set(found[:2])


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize(
    "above",
    [
        "slide_id;path;patient_id;ihc_score;sites (a, b, c);year, month, day",
        "HER2 study, as of 12.3.2024\nslide_id;path;patient_id;ihc_score;site;age",
        "HER2 study, 1\nslide_id;path;patient_id;ihc_score;site;age",
        'slide_id;path;patient_id;ihc_score;"sites, of all, and more, and more";age',
    ],
    ids=["in the heading", "in a title", "in a short title", "in quotes"],
)
@pytest.mark.parametrize(
    "more", [";A;1,5", ";;", ";A, B, C;1,5", ';"A, ""B""";'], ids=["number", "blank", "words", "quoted"]
)
def test_the_separator_is_that_of_heading_and_rows(table, separator, above, more):
    """Not the most frequent mark of the heading: commas stand in cells, too."""
    text = "\n".join([above, *(row.replace(",", ";") + more for row in PLAIN.splitlines()[1:])])

    assert slides(table(text.replace(";", separator))) == slides(table(PLAIN))


def test_a_table_of_commas_may_hold_lists(table):
    """Also where every row has one."""
    text = PLAIN.replace("ihc_score", "ihc_score,sites").replace("3+\n", "3+,a;b\n").replace(",0\n", ",0,c;d\n")

    assert slides(table(text)) == slides(table(PLAIN))


def test_lines_that_are_no_rows_are_told(table):
    """With their numbers; the lines of rows stay those of the file."""
    manifest = read_manifest(table("# a comment\nA title\n" + PLAIN + "x,y.svs,P2,9\n"))

    assert manifest.notes == (
        "line 1 is not read: blank, a comment or a setting",
        "line 2 is not read: a title, 'A title'",
    )
    assert manifest.problems == ("line 6: ihc_score: '9' is no IHC score: use 0, 1+, 2+ or 3+",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04\0\0", "is an Excel workbook or another archive; save the table as CSV (UTF-8)"),
        (b'[{"case": "1", "score": 0.3}]', "is JSON; save the table as CSV (UTF-8)"),
        (b"<!DOCTYPE html>\n<html>", "is XML or a web page; save the table as CSV (UTF-8)"),
        (b"\x1f\x8b\x08", "is a gzip archive; save the table as CSV (UTF-8)"),
        (b"PAR1\x15\x04", "is a Parquet file; save the table as CSV (UTF-8)"),
        (PLAIN.encode() + b"\0", "holds NUL bytes, so it is no text; save it as CSV (UTF-8)"),
        (PLAIN.replace("P0", "K\xf6ln").encode("cp1252"), "is no UTF-8 text; save it as CSV (UTF-8)"),
        (PLAIN.encode("utf-32"), "holds NUL bytes, so it is no text; save it as CSV (UTF-8)"),
        (b"# only\n# comments\n", "is empty; its first line must name the columns"),
        (b",,\n;;\n", "is empty; its first line must name the columns"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(table, content, told):
    """With what it is and what to do."""
    (line,) = refusal(table(content))

    assert told in line


def test_a_heading_may_be_a_gene(table):
    """PAR1 begins a Parquet file, too."""
    assert read_table(table("PAR1,PAR2\n1,2\n")).columns == ("PAR1", "PAR2")


def test_huge_cells_and_many_columns_make_short_messages(table):
    """A message never repeats the file."""
    names = ",".join(f"c{i}" for i in range(20_000))

    (columns,) = refusal(table(f"{names}\n1,2\n"))
    (cell,) = read_manifest(table(PLAIN.replace("3+", "x" * 100_000))).problems
    (split,) = refusal(table(PLAIN.replace("3+", '"' + "x" * 200_000)))

    assert "and 19988 more" in columns
    assert max(map(len, (columns, cell, split))) < 300


def test_a_name_too_long_for_the_system_is_a_missing_file(table):
    """And no error of the system."""
    problems = refusal(table(PLAIN.replace("s0.svs", "s" * 30_000)), lambda path: check_consistent(read_manifest(path)))

    assert len(problems) == 2
    assert all(problem.endswith(" is missing") for problem in problems)
    assert max(map(len, problems)) < 300


@pytest.mark.parametrize(("rows", "columns", "most_s"), [(100_000, 5, 3.0), (3, 20_000, 2.0)])
def test_time_grows_with_the_cells(table, rows, columns, most_s):
    """A tenth of a million rows, or 20 000 columns, in seconds; a million rows take 9 s of a core that others load."""
    more = columns - 3
    head = "slide_id,path,patient_id," + ",".join(f"c{i}" for i in range(more))
    path = table("\n".join([head, *(f"s{i},a.svs,P{i}" + ",x" * more for i in range(rows))]))

    start = time.process_time()
    manifest = read_manifest(path)

    assert len(manifest.rows) == rows
    assert time.process_time() - start < most_s


@given(
    st.lists(
        st.sampled_from(
            [
                *("slide_id", "path", "patient_id", "HER2 IHC", "ratio", "copies", "#", "sep=;", "CDE_ID:", "'--", "'"),
                *(",", ";", "\t", "|", "\n", "\r\n", '"', "\ufeff", "\x00", "\x1b[2J", "=cmd()", "9" * 400, "1e999"),
                *("3+", "\u00b2", "\u0663", "TCGA-A1-A0SK-01", "a" * 300, "-", "NA", "\ud800"),
            ]
        ),
        max_size=60,
    )
)
def test_any_text_is_a_table_or_refused(tmp_path_factory, parts):
    """Whatever a file holds, its reader ends in rows or in problems."""
    path = tmp_path_factory.mktemp("any") / "table.csv"
    path.write_bytes("".join(parts).encode("utf-8", "surrogatepass"))

    for read in (read_manifest, label_tests, read_tcga_brca, read_herohe, read_her2sc, _checked):
        with suppress(ManifestError):
            read(path)


def _checked(path):
    manifest = read_manifest(path)
    count_manifest(manifest)
    near_patients(manifest.rows)
    check_consistent(manifest)


# Columns


@pytest.mark.parametrize(
    "head",
    [
        "Slide ID,Path,Patient ID,IHC Score,Split,Stain,HER2 Status",
        "SLIDE-ID,PATH,PATIENT-ID,IHC-SCORE,SPLIT,STAIN,HER2-STATUS",
        "slide,file,patient,HER2 IHC,data split,staining,HER2",
        "slide,file,patient,HER2 IHC [0/1+/2+/3+],data split,staining,HER2 (pos or neg)",
    ],
)
def test_headings_are_matched_loosely(table, head):
    """Letter case, blanks, dashes and other usual names change no result, and what was matched is told."""
    manifest = read_manifest(table(f"{head}\ns0,s0.svs,P0,2+,test,IHC,positive\n"))
    (row,) = manifest.rows

    assert (row.split, row.stain, row.ihc_score, row.her2_status) == ("test", "IHC", IhcScore.TWO, Her2Status.POSITIVE)
    assert dict(row.extra) == {}
    assert f"split from {head.split(',')[4]!r}" in manifest.notes[0]


@pytest.mark.parametrize(
    ("head", "cells", "ish"),
    [
        ("FISH", "positive", "positive"),
        ("ratio,copies", "2.3,4.5", IshCounts(2.3, 4.5)),
        ("Ratio;HER2 copies".replace(";", ","), "2.3,4.5", None),
        ("HER2/CEP17 ratio,HER2 copy number", "2.3,4.5", IshCounts(2.3, 4.5)),
        ("ish,ratio,copies", "negative,2.3,3.5", "negative"),  # group 2: the IHC decides, or who states the result
        ("ish,ratio,copies", "negative,1.2,2.5", IshCounts(1.2, 2.5)),
    ],
)
def test_a_manifest_finds_its_ish(table, head, cells, ish):
    """Under its usual names, and as counts; a ratio by that name alone may be of anything."""
    manifest = read_manifest(table(f"slide_id,path,patient_id,{head}\ns0,s0.svs,P0,{cells}\n"))

    if ish is None:
        assert manifest.rows[0].ish == IshCounts(None, 4.5)
    else:
        assert manifest.rows[0].ish == ish


@pytest.mark.parametrize(
    "heading",
    [
        *("FISH HER2/CEN17", "HER2:CEP17", "HER2/D17Z1", "HER2/chr17 ratio", "ratio HER2 CEP 17", "HER-2/neu : CEN-17"),
        *("ERBB2/CEN17 (FISH)", "HER2 to CEP17 ratio", "HER2neu/CEP17 SISH ratio", "c-erbB-2/SE17", "Mean HER2/CEP 17"),
        *("HER2/Chromosome 17 signal ratio", "FISH_ratio_HER2_CENT17", "ISH: HER2 vs. centromere 17 ratio"),
    ],
)
@pytest.mark.parametrize("reader", [read_manifest, label_tests])
def test_the_ratio_goes_by_any_name_of_its_probe(table, reader, heading):
    """Whatever the probe of chromosome 17 is called, and however the two are joined."""
    found = reader(table(f"slide_id,path,patient_id,{heading},HER2 copies\ns0,s0.svs,P0,2.3,4.5\n"))

    assert f"ratio from {heading!r}" in found.notes[0]
    group = found.rows[0].ish.group if reader is read_manifest else found.rows[0][1].group
    assert group == 1


@pytest.mark.parametrize(
    "heading",
    [
        *(
            "CEP17 copies",
            "D17Z1 signals",
            "CEP17/HER2 ratio",
            "HER2 copies/CEP17 copies",
            "HER2/CEP17 status",
            "chr17",
        ),
        *("C17", "PC17", "HER2/CEP170", "HER2 and CEP17 signals", "HER2/CEP17 group", "chr17 ratio"),
        *("ISH (group)", "FISH (ratio / copies)", "HER2 (ISH; FISH)"),
    ],
)
def test_other_headings_are_not_the_ratio(table, heading):
    """Signals of one probe, the inverse, a status, a gene: none is read as the ratio."""
    found = label_tests(table(f"id,ihc_score,{heading}\n1,2+,2.3\n"))

    assert not any("ratio from" in note for note in found.notes)
    assert found.rows[0][1].status == Her2Status.UNDETERMINED


@pytest.mark.parametrize("heading", ["CEN17", "CEP 17 copies", "D17Z1 signals per cell"])
def test_signals_of_chromosome_17_go_by_any_name_of_their_probe(table, heading):
    """With the copies they give the ratio."""
    (row,) = label_tests(table(f"id,ihc_score,HER2 copies,{heading}\n1,2+,4.5,1.5\n")).rows

    assert row[1].group == 1


@pytest.mark.parametrize("reader", [read_manifest, label_tests])
def test_a_stated_ish_against_its_counts_is_told(table, reader):
    """By manifests as by labels: the counts decide, and where it is the rule the table is refused."""
    head = "slide_id,path,patient_id,ihc_score,ish,ratio,copies"
    rows = [f"s{k},s{k}.svs,P{k},2+,{stated},1.2,2.6" for k, stated in enumerate(("positive", *["negative"] * 3))]

    found = reader(table("\n".join((head, *rows)) + "\n"))

    assert "CAUTION line 2: ISH is stated positive, but ratio 1.2 copies 2.6 are negative" in found.notes
    status = found.rows[0].status() if reader is read_manifest else found.rows[0][1].status
    assert status == Her2Status.NEGATIVE
    (problem,) = read_manifest(table(f"{head}\n{rows[0]}\n")).problems
    assert "the stated ISH and its counts contradict each other on 1 of 1 lines" in problem
    with pytest.raises(ManifestError, match="the stated ISH and its counts contradict each other on 1 of 1 lines"):
        label_tests(table(f"{head}\n{rows[0]}\n"))


_RECOUNT = "unless the recount changed them; the stated result is taken"


@pytest.mark.parametrize(
    ("ihc", "stated", "counts", "status", "told"),
    [
        ("2+", "negative", "2.3,3.5", "negative", ""),  # group 2: the recount, of which the stated result is the end
        ("2+", "positive", "2.3,3.5", "positive", f"with IHC 2+ are negative {_RECOUNT}"),
        ("2+", "positive", "1.4,6.5", "positive", ""),  # group 3
        ("2+", "negative", "1.4,6.5", "negative", f"with IHC 2+ are positive {_RECOUNT}"),
        ("2+", "negative", "1.4,4.5", "negative", ""),  # group 4
        ("2+", "positive", "1.4,4.5", "positive", f"with IHC 2+ are negative {_RECOUNT}"),
        ("2+", "equivocal", "1.4,4.5", "undetermined", ""),
        ("1+", "positive", "2.3,3.5", "negative", "ISH is stated positive, but ratio 2.3 copies 3.5 with IHC 1+ are"),
        ("1+", "negative", "1.4,6.5", "negative", ""),
        ("3+", "negative", "1.4,4.5", "positive", ""),
        ("", "positive", "2.3,3.5", "positive", ""),
        ("1+", "positive", ",4.5", "positive", ""),  # copies alone: dual-probe ISH is needed
        ("1+", "positive", "1.2,", "negative", "ISH is stated positive, but ratio 1.2 with IHC 1+ are negative"),
        ("2+", "positive", "1.2,2.6", "negative", "ISH is stated positive, but ratio 1.2 copies 2.6 are negative"),
    ],
)
def test_manifests_and_labels_settle_stated_and_counted_ish_alike(table, ihc, stated, counts, status, told):
    """The counts decide where the guideline gives a status by them; elsewhere the stated result is its last step."""
    others = "".join(f"s{k},s{k}.svs,P{k},2+,negative,1.2,2.6\n" for k in (1, 2))
    head = "slide_id,path,patient_id,ihc_score,ish,ratio,copies"
    path = table(f"{head}\ns0,s0.svs,P0,{ihc},{stated},{counts}\n{others}")

    manifest, labelled = read_manifest(path), label_tests(path)

    assert (manifest.rows[0].status(), labelled.rows[0][1].status) == (status, status)
    for notes in (manifest.notes, labelled.notes):
        cautions = [note for note in notes if note.startswith("CAUTION")]
        assert len(cautions) == bool(told)
        assert not told or told in cautions[0]
    again = read_manifest(manifests.write_manifest(manifest, path.with_name("again.csv")))
    assert again.rows[0].status() == status


def test_headings_that_are_formulas_read_back(tmp_path):
    """A spreadsheet computes none of a manifest that is written again; their names stay."""
    path = tmp_path / "m.csv"
    path.write_text("slide_id,path,patient_id,=cmd()\ns1,s1.svs,p1,=evil()\n")
    manifest = read_manifest(path)

    again = manifests.write_manifest(manifest, tmp_path / "again.csv")

    assert "'=cmd()" in again.read_text().splitlines()[0]
    assert read_manifest(again).rows[0].extra == manifest.rows[0].extra == {"=cmd()": "=evil()"}


def test_counts_of_the_recount_outrank_a_stated_result(table):
    """They are the last step then, and the group is kept beside a stated result."""
    path = table("id,ihc_score,ish,ratio,copies\n1,2+,positive,2.3,3.5\n")
    (first,), (recounted,) = (label_tests(path, recounted=found).rows for found in (False, True))

    assert (first[1].status, first[1].group) == ("positive", 2)
    assert "leaves the status open, and the report states the result: ISH positive is positive" in first[1].rule
    assert (recounted[1].status, recounted[1].group) == ("negative", 2)
    assert "unless" not in recounted[2]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("split,Split", "two columns for split, 'split' and 'Split', and differ on line 2; rename the one"),
        ("data split,dataset_split", "two columns for split, 'data split' and 'dataset_split', and differ on line 2"),
        ("IHC_Score,HER2 IHC score", "has two columns for ihc_score, 'IHC_Score' and 'HER2 IHC score'"),
        ("Split,split", "'split' and 'Split', and differ on line 2"),
        ("split,split", "has the column 'split' twice, and differ on line 2; rename one"),
    ],
)  # fmt: skip
def test_two_columns_for_one_field_are_refused(table, head, told):
    """Both are named; nobody knows which one is meant."""
    (line,) = refusal(table(f"slide_id,path,patient_id,{head}\ns0,s0.svs,P0,train,test\n"))

    assert told in line


def test_two_columns_that_hold_the_same_are_one(table):
    """As joins of tables leave them; other columns may come twice, too."""
    manifest = read_manifest(table("slide_id,path,patient_id,split,Split,n,n\ns0,s0.svs,P0,test,test,1,2\n"))

    assert manifest.rows[0].split == "test"
    assert dict(manifest.rows[0].extra) == {"Split": "test", "n": "1", "n (column 7)": "2"}


def test_near_misses_and_unread_columns_about_her2_are_told(command_line, tmp_path):
    """By name, with what they may have meant."""
    (tmp_path / "s0.svs").touch()
    path = tmp_path / "m.csv"
    path.write_text(
        "slide_id,path,patient_id,her2_status,splitt,HER2 percent,ERBB2 group,gene amplification,note\n"
        "s0,s0.svs,P0,positive,test,5,a,no,b\n"
    )

    code, out, _ = command_line("manifest", "check", path)

    assert code == 0
    assert "'splitt' (is it split?)" in out
    assert "columns about HER2 that are not read: HER2 percent, ERBB2 group, gene amplification" in out
    assert "note" not in out


def test_columns_that_may_be_a_field_are_told(table):
    """Unread, no slide has a status, and no audit looks at the sites."""
    notes = read_manifest(table("slide_id,path,patient_id,label,Hospital\ns0,s0.svs,P0,positive,A\n")).notes

    assert notes == (
        "columns that may be her2_status are not read: label; rename one to her2_status if it is",
        "columns that may be site are not read: Hospital; rename one to site if it is",
    )


def test_our_own_name_is_taken_for_itself(table):
    """Another name of the same field beside it is named, not read."""
    manifest = read_manifest(table("slide_id,path,patient_id,ihc_score,HER2 IHC\ns0,s0.svs,P0,2+,3+\n"))

    assert manifest.rows[0].ihc_score == IhcScore.TWO
    assert manifest.notes == ("columns about HER2 that are not read: HER2 IHC",)


@pytest.mark.parametrize(
    ("head", "cells", "status"),
    [
        ("id,HER2 IHC,ratio,copies", "1,3+,1.5,4.5", "positive"),
        ("id,IHC_score,ISH,Ratio,copies", "1,0,positive,2.5,3.0", "negative"),
        ("id;ihc_score;HER2/CEP17;HER2 copies per cell", "1;2+;1,4;3,2", "negative"),
        ("id,ihc_score,FISH ratio,FISH copies", "1,2.0,2.4,5", "positive"),
    ],
)
def test_tests_are_found_under_their_usual_names(table, head, cells, status):
    """A test that is there is never left out for its heading."""
    labelled = label_tests(table(f"{head}\n{cells}\n"))

    assert labelled.rows[0][1].status == status
    assert "from" in labelled.notes[0]


def test_a_named_column_of_tests_is_taken(table):
    """As the user names it, and refused where it is not there."""
    path = table("id,score A,score B\n1,0,3+\n")

    assert label_tests(path, manifests.TestColumns(ihc_score="Score B")).rows[0][1].status == "positive"
    assert refusal(path, lambda path: label_tests(path, manifests.TestColumns(ihc_score="C"))) == [
        "has no column 'C' for ihc_score; it has id, score A, score B"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,234", "may be a decimal or thousands"),
        (">2.0", "is no number"),
        ("1_0", "is no number"),
        ("inf", "is no number"),
    ],
)
def test_numbers_that_are_not_clear_are_refused(table, text, told):
    """Nothing is guessed."""
    (line,) = refusal(table(f'id;ihc_score;ratio\n1;2+;"{text}"\n'), label_tests)

    assert line.startswith("line 2: ratio: ")
    assert told in line


# Names


@pytest.mark.parametrize(
    "name",
    [
        "NA",
        "nan",
        "None",
        "-",
        "unknown",
        "",
        "n/a",
        "#N/A",
        "NULL",
        "--",
        "'--",
        "?",
        ".",
        "Not Reported",
        "[Not Available]",
    ],
)
@pytest.mark.parametrize("column", ["slide_id", "patient_id"])
def test_a_missing_name_is_a_problem_of_its_line(table, name, column):
    """Two patients of unknown name are not one patient."""
    names = {"slide_id": "s1", "patient_id": "P1", column: name}
    manifest = read_manifest(table(f"{PLAIN}{names['slide_id']},s1.svs,{names['patient_id']},0\n"))

    (problem,) = manifest.problems
    assert problem.startswith(f"line 4: no {column}")
    assert len(manifest.rows) == 2


@pytest.mark.parametrize("name", ["0", "Nan-1", "na7", "P-1", "Not", "\u674e", "7"])
def test_names_that_are_there_are_no_problem(name):
    """Numbers, other scripts and names that only begin like a missing value."""
    assert not names_nothing(name)


def test_a_dash_among_results_is_not_blank():
    """It may mean negative, so it is refused where a result is read."""
    assert not is_blank("-")
    assert is_blank("'--")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1", "p1"), ("P1", "P01"), ("Case 7", "case-007"), ("S001", "S001.svs"), ("S001", "s1.ndpi"), ("1", "0001"),
        ("M\u00fcller", "Mu\u0308ller"), ("\uff30\uff11", "P1"), ("A_1", "a 1"), ("x.ome.tif", "X"),
    ],
)  # fmt: skip
def test_names_that_differ_only_in_writing_are_near_misses(first, second):
    """Letter case, zeros, blanks, dashes, endings, Unicode form."""
    assert near_misses([first], [second]) == ((first, second),)


@pytest.mark.parametrize(("first", "second"), [("P1", "P2"), ("P10", "P1"), ("P100", "P1"), ("A1", "B1"), ("P1", "P1")])
def test_other_names_and_the_same_name_are_none(first, second):
    """A zero inside or at the end counts."""
    assert near_misses([first], [second]) == ()


@given(st.text(min_size=1, max_size=12))
def test_a_loose_name_is_never_empty(name):
    """So that marks alone are not all one name."""
    assert loose_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("anonymous", "unbekannt", "k.A.", "TBD", "not known", "xxx", "n.a.", "1.23E+05", "2.0e+10"),
        *("Unknown patient", "no_ID", "patient: n/a", "redacted", "-9", "-999"),
    ],
)
def test_words_for_nobody_and_rounded_numbers_name_no_patient(name):
    """A hospital's "unknown" is no patient; nor is a long number that a spreadsheet has rounded, which is several."""
    assert names_nothing(name)


@pytest.mark.parametrize("name", ["0", "100", "1E5", "E12", "P-1.5", "Anon-7", "Patient 3", "-12", "No. 9", "blank"])
def test_short_numbers_and_numbered_words_are_names(name):
    """Nothing that tells patients apart is refused."""
    assert not names_nothing(name)


def test_a_column_with_the_values_of_a_split_is_told(table):
    """`set` with train and test is a split under another name; unread, all slides would be evaluated."""
    head = "slide_id,path,patient_id,her2_status"
    notes = read_manifest(
        table(f"{head},set,staining method\ns,s.svs,P1,positive,TEST,IHC\nt,t.svs,P2,negative,train,\n")
    ).notes
    other = read_manifest(table(f"{head},set,split\ns,s.svs,P1,positive,test,train\n")).notes
    (of_bracs,) = read_manifest(table(f"{head},Set\ns,s.svs,P1,positive,Training\n")).notes

    assert "column 'set' is not read and holds test, train: is it split? Rename it if it is meant" in notes
    assert "column 'staining method' is not read and holds ihc: is it stain? Rename it if it is meant" in notes
    assert not other
    assert of_bracs.endswith("holds training: is it split? Rename it if it is meant, and write train, val, test")


def test_words_by_which_a_stain_is_told_are_read(table):
    """A column was told to be a stain, and its words were refused once it had the name; ER is no IHC of HER2.

    HER2 in each row is the gene of a study, HER2+ a status: neither column is told to be the stain.
    """
    words = ("H & E", "h and e", "Haematoxylin-Eosin", "HER2", "IHC-HER2", "HER2 IHC", "ER", "HER2+")
    rows = [f"s{i},s.svs,P{i},{word}\n" for i, word in enumerate(words)]

    told = read_manifest(table("slide_id,path,patient_id,method\n" + "".join(rows[:-2]))).notes
    others = read_manifest(
        table("slide_id,path,patient_id,gene,subtype\ns,s.svs,P1,HER2,HER2+\nt,t.svs,P2,HER2,HER2-\n")
    )
    read = read_manifest(table("slide_id,path,patient_id,stain\n" + "".join(rows)))

    assert len(told) == 1
    assert "is it stain?" in told[0]
    assert not others.notes
    assert [row.stain for row in read.rows] == [*3 * ["HE"], *3 * ["IHC"], None, None]
    assert read.problems == tuple(
        f"line {line}: stain: {word!r} is no stain: use HE or IHC" for line, word in ((8, "ER"), (9, "HER2+"))
    )


def test_a_patient_with_many_slides_is_told(table):
    """Ten times as many as the others have: the name may be the hospital's."""
    rows = [*(f"a{k},a{k}.svs,P{k}" for k in range(8)), *(f"b{k},b{k}.svs,Site A" for k in range(12))]

    (note,) = read_manifest(table("slide_id,path,patient_id\n" + "\n".join(rows) + "\n")).notes

    assert note == "patient 'Site A' has 12 of 20 slides, where most have 1: is it one patient?"
