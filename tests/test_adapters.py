"""Public cohorts: every patient is accounted for, every contradiction is told, and slides find their patients."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.datasets import (
    TCGA_COLUMNS,
    SlideName,
    her2sc_slide_namer,
    read_her2sc,
    read_herohe,
    read_tcga_brca,
    tcga_slide_name,
)
from he2her2.datasets.tcga_brca import _Reason
from he2her2.errors import ConfigError, ManifestError
from he2her2.labels import Her2Status, IhcScore, IshCounts, IshResult, Policy
from he2her2.manifest import read_manifest, require_usable
from he2her2.slides import slides_in

TCGA_HEAD = "patient_id,HER2_ihc_score,IHC_HER2,HER2_fish_status,HER2_cent17_ratio,HER2_copy_number,her2_clinical"
BARCODE = "TCGA-A1-A0S"


@pytest.fixture
def clinical(tmp_path):
    """Write a clinical table of HER2 fields, a patient each; gives its path."""

    def write(*fields, head=TCGA_HEAD):
        path = tmp_path / "clinical.csv"
        lines = (f"{BARCODE}{i:X},{row}" for i, row in enumerate(fields))
        path.write_text("\n".join((head, *lines)) + "\n")
        return path

    return write


@pytest.fixture(scope="module")
def public_table(data_dir):
    """The clinical table of 935 patients."""
    return data_dir / "labels" / "tcga_brca_her2.csv"


def only(study):
    """The study's one labelled patient."""
    (patient,) = study.patients
    return patient


def reason(study):
    """Why the study's one patient was left out."""
    (found,) = [exclusion.reason for exclusion in study.exclusions if exclusion.patients]
    return found


@pytest.mark.parametrize(
    ("fields", "score", "ish", "status"),
    [
        ("0,Negative,NA,NA,NA,", "0", None, "negative"),
        ("1,Negative,NA,NA,NA,", "1+", None, "negative"),
        ("3,Positive,NA,NA,NA,", "3+", None, "positive"),
        ("NA,Negative,NA,NA,NA,", None, None, "negative"),
        ("NA,Positive,NA,NA,NA,", None, None, "positive"),
        ("2,Equivocal,Negative,NA,NA,", "2+", IshResult.NEGATIVE, "negative"),
        ("2,Positive,Positive,NA,NA,", "2+", IshResult.POSITIVE, "positive"),
        ("2,Equivocal,Negative,1.1,2.3,", "2+", IshCounts(1.1, 2.3), "negative"),
        ("2,Equivocal,Positive,NA,>6,", "2+", IshResult.POSITIVE, "positive"),
        ("NA,NA,Negative,1.1,NA,", None, IshResult.NEGATIVE, "negative"),
        ("NA,NA,NA,2.4,7,", None, IshCounts(2.4, 7), "positive"),
        ("2,Indeterminate,Positive,NA,NA,", "2+", IshResult.POSITIVE, "positive"),
    ],
)
def test_fields_that_agree_give_their_label(clinical, fields, score, ish, status):
    """A score stands as it is, a status without a score becomes none; nothing is told as a conflict."""
    study = read_tcga_brca(clinical(fields))
    patient = only(study)

    assert (patient.ihc_score, patient.ish, patient.status) == (score, ish, status)
    assert ("without a score" in patient.rule) == (score is None and ish is None)
    assert patient.site == "A1"
    assert study.conflicts == ()


@pytest.mark.parametrize(
    ("fields", "kind", "score", "status"),
    [
        ("1,Positive,Negative,NA,NA,", "IHC score and IHC status", None, "negative"),
        ("2,Positive,Negative,NA,NA,", "IHC score and IHC status", "2+", "negative"),
        ("3,Positive,Negative,NA,NA,", "IHC and ISH", "3+", "positive"),
        ("1,Negative,Positive,2.2,NA,", "IHC and ISH", "1+", "positive"),
        ("1,Negative,Negative,1.1,185,", "copies per cell", "1+", "negative"),
        ("1,Negative,Negative,1.3,6.4,", "FISH and counts", "1+", "negative"),
        ("3,Positive,NA,NA,NA,HER2neg", "tests and the table's own status", "3+", "positive"),
    ],
)
def test_fields_that_disagree_are_told_and_decided_by_rule(clinical, fields, kind, score, status):
    """Each kind of contradiction, with what was made of it."""
    study = read_tcga_brca(clinical(fields))

    assert [conflict.conflict for conflict in study.conflicts] == [kind]
    assert study.conflicts[0].line == 2
    assert (only(study).ihc_score, only(study).status) == (score, status)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("NA,NA,NA,NA,NA,", 0),
        ("NA,Indeterminate,NA,NA,NA,HER2pos", 0),
        ("1,Positive,NA,NA,NA,", 2),
        ("2,Equivocal,Positive,NA,not amplified,", 3),
        ("2,Equivocal,Negative,2.9,NA,", 3),
        ("2,Equivocal,Equivocal,1.75,NA,", 3),
        ("2,Equivocal,Equivocal,2.25,NA,", 3),
        ("NA,Positive,Negative,NA,NA,", 4),
        ("2,Equivocal,NA,NA,NA,", 5),
        ("2,Positive,NA,NA,NA,", 5),
        ("2,Equivocal,Negative,1.5,5.0,", 6),
        ("NA,NA,Negative,1.06,4.7,", 7),
    ],
)
def test_what_cannot_be_decided_is_left_out_by_reason(clinical, fields, why):
    """Nothing is guessed."""
    study = read_tcga_brca(clinical(fields))

    assert study.patients == ()
    assert reason(study) == list(_Reason)[why]
    assert all(conflict.resolution == "left out" for conflict in study.conflicts)


def test_strict_leaves_out_who_has_a_conflict(clinical):
    """A copy number that is a total contradicts nothing."""
    rows = ("3,Positive,Negative,NA,NA,", "1,Negative,Negative,1.1,185,", "0,Negative,NA,NA,NA,")

    study = read_tcga_brca(clinical(*rows), strict=True)

    assert [patient.patient_id for patient in study.patients] == [f"{BARCODE}1", f"{BARCODE}2"]
    assert study.exclusions[-1].patients == (f"{BARCODE}0",)


def test_the_papers_policy_takes_an_open_2_plus_as_positive(clinical):
    """As an option, by name."""
    study = read_tcga_brca(clinical("2,Equivocal,NA,NA,NA,"), policy=Policy.PAPER)

    assert only(study).status == Her2Status.POSITIVE


def test_the_other_ihc_score_column_is_never_read(clinical):
    """The IHC_Score of cBioPortal is not HER2's."""
    head = TCGA_HEAD.replace("HER2_ihc_score", "IHC_Score")

    study = read_tcga_brca(clinical("3,Negative,NA,NA,NA,", head=head))

    assert (only(study).ihc_score, only(study).status) == (None, Her2Status.NEGATIVE)


def test_a_patient_of_several_rows_is_one_patient(tmp_path):
    """Rows that agree are one; rows that do not leave the patient out, with both told."""
    path = tmp_path / "clinical.csv"
    path.write_text(
        "bcr_patient_barcode\ther2_immunohistochemistry_level_result\n"
        "TCGA-A1-A0SB-01\t1+\nTCGA-A1-A0SB-06\t1+\nTCGA-A1-A0SD\t1+\nTCGA-A1-A0SD\t3+\n"
    )

    study = read_tcga_brca(path)

    assert (study.n_patients, only(study).patient_id) == (2, "TCGA-A1-A0SB")
    assert reason(study) == _Reason.ROWS_DISAGREE
    assert "line 4: IHC score 1+" in study.conflicts[0].found


def test_all_bad_cells_are_told_at_once(clinical, command_line):
    """With line, column and text."""
    path = clinical("9,Negative,NA,NA,NA,", "0,Maybe,NA,x,NA,")
    path.write_text(path.read_text() + "somebody,0,NA,NA,NA,NA,\n,0,NA,NA,NA,NA,\n")

    code, _, err = command_line("manifest", "tcga-brca", "--clinical", path, "--out", path.parent / "out.csv")

    assert code == 2
    assert [line.split(": ")[2:4] for line in err.splitlines()] == [
        ["line 2", "HER2_ihc_score"],
        ["line 3", "IHC_HER2"],
        ["line 3", "HER2_cent17_ratio"],
        ["line 4", "patient_id"],
        ["line 5", "no patient"],
    ]


cells = st.tuples(
    st.sampled_from(["0", "1", "2", "3", "NA"]),
    st.sampled_from(["Negative", "Positive", "Equivocal", "Indeterminate", "NA"]),
    st.sampled_from(["Negative", "Positive", "Equivocal", "NA"]),
    st.sampled_from(["0.9", "1.9", "2.0", "5", "NA"]),
    st.sampled_from(["1.5", "4.2", "6", "15", "300", "not amplified", "NA"]),
    st.sampled_from(["HER2neg", "HER2pos", ""]),
)


@given(rows=st.lists(cells, min_size=1, max_size=15), strict=st.booleans(), policy=st.sampled_from(list(Policy)))
def test_every_patient_is_labelled_or_left_out_for_one_reason(tmp_path_factory, rows, strict, policy):
    """Whatever the fields say, the counts add up, and no label is open."""
    path = tmp_path_factory.mktemp("tcga") / "clinical.csv"
    path.write_text("\n".join((TCGA_HEAD, *(f"{BARCODE}{i:X},{','.join(row)}" for i, row in enumerate(rows)))))

    study = read_tcga_brca(path, strict=strict, policy=policy)

    named = [patient.patient_id for patient in study.patients]
    named += [name for exclusion in study.exclusions for name in exclusion.patients]
    assert sorted(named) == sorted(f"{BARCODE}{i:X}" for i in range(len(rows)))
    assert all(patient.status != Her2Status.UNDETERMINED for patient in study.patients)


def test_the_public_table_adds_up_to_935(public_table, command_line, tmp_path):
    """The count at each exclusion, printed, and each conflict in the log."""
    out = tmp_path / "labels.csv"

    code, told, err = command_line("manifest", "tcga-brca", "--clinical", public_table, "--out", out)

    assert code == 0, err
    lines = [line for line in told.splitlines() if line.startswith("  ")]
    numbers = [int(line.split()[0]) for line in lines]
    assert (numbers[0], lines[0]) == (935, "   935 patients in the table")
    assert sum(numbers[: 1 + len(_Reason)]) == numbers[1 + len(_Reason)] == 907
    assert numbers[2 + len(_Reason) :] == [744, 163]
    with (tmp_path / "labels-conflicts.csv").open() as file:
        conflicts = list(csv.DictReader(file))
    assert f"conflicts and their resolution: {len(conflicts)}, in" in told
    assert {row["patient_id"] for row in conflicts} > {"TCGA-A7-A4SD", "TCGA-D8-A1JB"}
    with out.open() as file:
        assert len(list(csv.DictReader(file))) == 907


def test_the_public_table_differs_from_its_own_status_only_as_told(public_table):
    """Where our label is not the table's derived one, the log says so."""
    study = read_tcga_brca(public_table)
    with public_table.open() as file:
        own = {row["patient_id"]: row["her2_source"].lower() for row in csv.DictReader(file)}

    differing = {patient.patient_id for patient in study.patients if own[patient.patient_id] != patient.status}

    assert differing == {c.patient_id for c in study.conflicts if c.conflict == "tests and the table's own status"}
    assert len(differing) == 4


HER2_FIELDS = ("HER2_ihc_score", "IHC_HER2", "HER2_fish_status", "HER2_cent17_ratio", "HER2_copy_number")


def lines_of(head, rows, delimiter="\t"):
    """A table as text."""
    return "".join(delimiter.join(cells) + "\n" for cells in (head, *rows))


def gdc_biotab(patients):
    """Three lines of headings, patients of four letters beside the barcode, missing values in brackets."""
    head = ("bcr_patient_uuid", "bcr_patient_barcode", "patient_id", "her2_ihc_score", "her2_status_by_ihc",
            "her2_fish_status", "her2_cent17_ratio", "her2_copy_number", "nte_her2_status")  # fmt: skip
    alternate = (*head[:3], "her2_immunohistochemistry_level_result", "x", *head[5:])
    cde = ("CDE_ID:", "CDE_ID:2003301", *["CDE_ID:2957563"] * 7)
    rows = [
        ("u", name, name[-4:], *(value.replace("NA", "[Not Available]") for value in values), "[Not Applicable]")
        for name, values in patients
    ]
    return lines_of(head, (alternate, cde, *rows))


def gdc_portal(patients):
    """Missing values as '--, barcodes under another name."""
    head = ("case_id", "case_submitter_id", "her2_ihc_score", "her2_status_by_ihc", "her2_fish_status",
            "her2_cent17_ratio", "her2_copy_number")  # fmt: skip
    missing = ("'--", "Not Reported", "[Discrepancy]")
    rows = [
        ("f3a1-uuid", name, *(missing[i % 3] if value == "NA" else value for value in values))
        for i, (name, values) in enumerate(patients)
    ]
    return lines_of(head, rows)


def cbioportal_study(patients):
    """Four lines of comments above the heading, scores with a plus."""
    head = ("PATIENT_ID", "HER2_IHC_SCORE", "IHC_HER2", "HER2_FISH_STATUS", "HER2_CENT17_RATIO", "HER2_COPY_NUMBER")
    rows = [(name, score.replace("NA", "[Not Available]"), *rest) for name, (score, *rest) in patients]
    comments = [tuple(f"#{cell}" if i == 0 else cell for i, cell in enumerate(head))] * 4
    return lines_of(comments[0], (*comments[1:], head, *rows))


def cbioportal_export(patients):
    """A row for each sample of a patient, headings for people, one of them twice, an IHC score that is not HER2's."""
    head = ("Study ID", "Patient ID", "Sample ID", "HER2 ihc score", "IHC-HER2", "HER2 fish status",
            "HER2 cent17 ratio", "HER2 copy number", "IHC Score", "Form date", "Form date")  # fmt: skip
    rows = []
    for i, (name, values) in enumerate(patients):
        samples = ("01", "06") if i % 5 == 0 else ("01",)
        rows += [("brca_tcga", name, f"{name}-{sample}", *values, "4", "1", sample) for sample in samples]
    return lines_of(head, rows)


def xena_matrix(patients):
    """A row for each sample, normal tissue too, whose fields may be blank; barcodes with underscores."""
    head = ("sampleID", "_PATIENT", "her2_immunohistochemistry_level_result",
            "lab_proc_her2_neu_immunohistochemistry_receptor_status",
            "lab_procedure_her2_neu_in_situ_hybrid_outcome_type", "her2_neu_chromosone_17_signal_ratio_value",
            "her2_neu_breast_carcinoma_copy_analysis_input_total_number",
            "her2_neu_metastatic_breast_carcinoma_copy_analysis_input_total_number")  # fmt: skip
    rows = []
    for i, (name, values) in enumerate(patients):
        bare = name.replace("-", "_.-"[i % 3])
        cells = [*(value.replace("NA", "") for value in values), "9.5"]
        rows.append((f"{name}-01", bare, *cells))
        if i % 4 == 0:
            rows.append((f"{name}-11", bare, *(cells if i % 8 else [""] * len(cells))))
    return lines_of(head, rows)


def firehose(patients):
    """A prefix before each field of the form, small letters; fields of metastases, which are no slides' here."""
    head, *rows = (line.split("\t") for line in xena_matrix(patients).splitlines())
    names = ("bcr_patient_barcode", *head[2:])
    cells = ((row[1].replace("_", "-").replace(".", "-"), *row[2:]) for row in rows if row[0].endswith("-01"))
    return lines_of([f"patient.{name.lower()}" for name in names], ([cell.lower() for cell in row] for row in cells))


def csv_of_a_hospital(patients):
    """Semicolons, a title, decimal commas, scores as 2.0, small letters."""
    head = (
        "Patient",
        "HER2 IHC score",
        "HER2-status by IHC",
        "HER2 FISH status",
        "HER2/cent17 ratio",
        "HER2 copy number",
    )
    rows = []
    for name, (score, status, fish, ratio, copies) in patients:
        decimal = (value.replace(".", ",") for value in (ratio, copies))
        rows.append((name.lower(), score if score == "NA" else f"{score}.0", status, fish, *decimal))
    return "TCGA breast;;;;;\n" + lines_of(head, rows, ";")


@pytest.mark.parametrize(
    "shape", [gdc_biotab, gdc_portal, cbioportal_study, cbioportal_export, xena_matrix, firehose, csv_of_a_hospital]
)
def test_the_same_patients_have_the_same_labels_in_every_shape(public_table, tmp_path, shape):
    """The tables of GDC, cBioPortal and Xena differ in form alone; the counts add up in each."""
    with public_table.open() as file:
        patients = [(row["patient_id"], [row[name] for name in HER2_FIELDS]) for row in csv.DictReader(file)]
    path = tmp_path / "clinical.txt"
    path.write_text(shape(patients))

    def labels(study):
        return {p.patient_id: (p.ihc_score, p.ish, p.status, p.stratum, p.rule, p.site) for p in study.patients}

    expected, study = read_tcga_brca(public_table), read_tcga_brca(path)

    assert study.n_patients == 935
    assert labels(study) == labels(expected)
    assert Counter(p.status for p in study.patients) == {"negative": 744, "positive": 163}
    assert [e.patients for e in study.exclusions] == [e.patients for e in expected.exclusions]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hybridization REF\ttcga-3c-aali\ttcga-3c-aalk\npatient.gender\tfemale\tfemale\n", "patients are columns"),
        ("Complete TCGA ID,HER2 Final Status\nTCGA-3C-AALI,Positive\n", "has no column of a HER2 test, IHC or FISH"),
    ],
)
def test_a_table_without_rows_of_tests_is_refused(tmp_path, text, said):
    """Firehose has a patient in each column; a status alone labelled nobody, and nothing was said of it."""
    (tmp_path / "clinical.txt").write_text(text)

    with pytest.raises(ManifestError, match=said):
        read_tcga_brca(tmp_path / "clinical.txt")


def test_a_column_that_is_named_holds_the_patients(tmp_path):
    """Barcodes of sample and aliquot beside it make most cells of a row barcodes: it is not taken for transposed."""
    (tmp_path / "own.csv").write_text(
        "Subject,Tissue,Aliquot,IHC\nTCGA-3C-AALI,TCGA-3C-AALI-01A,TCGA-3C-AALI-01A-11R,3+\n"
    )

    [patient] = read_tcga_brca(tmp_path / "own.csv", columns={"patient": "Subject", "ihc": "IHC"}).patients

    assert (patient.case, patient.status) == ("TCGA-3C-AALI", Her2Status.POSITIVE)


def test_a_table_of_molecular_tests_has_a_row_for_each_test(tmp_path):
    """GDC's newer form: gene, method and result; other genes count as no HER2 test."""
    path = tmp_path / "tests.tsv"
    names = ("cases.submitter_id", "molecular_tests.gene_symbol", "molecular_tests.laboratory_test")
    path.write_text(
        lines_of(
            (*names, "molecular_tests.test_result"),
            [
                ("TCGA-A1-A0SA", "ERBB2", "HER2/neu IHC", "Equivocal"),
                ("TCGA-A1-A0SA", "ERBB2", "HER2/neu FISH", "Positive"),
                ("TCGA-A1-A0SB", "ESR1", "Estrogen Receptor IHC", "Positive"),
                ("TCGA-A1-A0SC", "ERBB2", "HER2/neu IHC", "Negative"),
                ("TCGA-A1-A0SC", "ERBB2", "HER2/neu FISH", "'--"),
                ("TCGA-A1-A0SC", "ERBB2", "HER2/neu FISH", "Copy Number Reported"),
            ],
        )
    )

    study = read_tcga_brca(path)

    assert {p.patient_id[-1]: str(p.status) for p in study.patients} == {"A": "positive", "C": "negative"}
    assert study.exclusions[0].patients == ("TCGA-A1-A0SB",)
    assert "1 rows of HER2 report a count, which is not read" in study.notes[-1]


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ("TCGA-A1-A0SA-01,3+,Positive\nTCGA-A1-A0SA-06,0,Negative\n", "positive"),
        ("TCGA-A1-A0SA-06,0,Negative\nTCGA-A1-A0SA-01,3+,Positive\n", "positive"),
        ("TCGA-A1-A0SA-01,3+,\nTCGA-A1-A0SA-01,,Positive\n", "positive"),
        ("TCGA-A1-A0SA-01,3+,\nTCGA-A1-A0SA-01,0,\n", None),
        ("TCGA-A1-A0SA,3+,\nTCGA-A1-A0SA,0,\n", None),
    ],
)
def test_the_primary_tumour_speaks_for_a_patient(tmp_path, rows, status):
    """Slides of metastases and of normal tissue are not used, so their rows are not, either."""
    path = tmp_path / "clinical.csv"
    path.write_text(f"Sample ID,HER2 ihc score,IHC-HER2\n{rows}")

    study = read_tcga_brca(path)

    assert [p.status for p in study.patients] == ([] if status is None else [status])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96.svs", SlideName("TCGA-A1-A0SK", "HE")),
        ("tcga-a1-a0sk-01z-00-dx2.svs", SlideName("TCGA-A1-A0SK", "HE")),
        ("TCGA-A1-A0SK-01Z-00-DXA.svs", SlideName("TCGA-A1-A0SK", "HE")),
        ("TCGA-A1-A0SK-01A-01-TS1.svs", "frozen section (TS)"),
        ("TCGA-A1-A0SK-06A-00-DX1.svs", "no primary tumour (sample type 06)"),
        ("TCGA-A1-A0SK-11A-01-BS1.svs", "no primary tumour (sample type 11)"),
        ("A1-A0SK.svs", "no TCGA slide barcode"),
    ],
)
def test_tcga_slides_are_known_by_their_barcode(name, said):
    """Diagnostic slides of primary tumours are taken, others told."""
    assert tcga_slide_name(Path(name)) == said


def test_tcga_slides_become_a_manifest(clinical, command_line, tmp_path):
    """Slides below the folder are matched, others counted by reason; the manifest is ready for use."""
    slides = tmp_path / "slides"
    names = (
        f"uuid/{BARCODE}0-01Z-00-DX1.x.svs", f"{BARCODE}0-01Z-00-DX2.svs", f"{BARCODE}1-01Z-00-DX1.svs",
        f"{BARCODE}1-01A-01-TS1.svs", f"{BARCODE}9-01Z-00-DX1.svs", ".hidden.svs", "notes.txt",
    )  # fmt: skip
    for name in names:
        (slides / name).parent.mkdir(parents=True, exist_ok=True)
        (slides / name).touch()
    table = clinical("0,Negative,NA,NA,NA,", "3,Positive,NA,NA,NA,", "0,Negative,NA,NA,NA,")
    out = tmp_path / "manifest.csv"

    code, told, err = command_line(
        "manifest", "tcga-brca", "--clinical", table, "--slides", slides, "--out", out, "--split", "test"
    )

    assert code == 0, err
    manifest = read_manifest(out)
    require_usable(manifest, stain="HE", label="her2_status", splits=("test",))
    assert Counter(row.patient_id for row in manifest.rows) == {f"{BARCODE}0": 2, f"{BARCODE}1": 1}
    assert {row.slide_id for row in manifest.rows} >= {f"{BARCODE}0-01Z-00-DX1.x"}
    assert told.splitlines()[-5:-1] == [
        "    -1 files: frozen section (TS)",
        "    -1 slides of nobody with a label",
        "    -1 labelled patients without a slide",
        "     3 slides of 2 patients in the manifest",
    ]


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_slides_is_refused(clinical, command_line, tmp_path, folder):
    """In one line."""
    table = clinical("0,Negative,NA,NA,NA,")

    code, _, err = command_line(
        "manifest", "tcga-brca", "--clinical", table, "--slides", tmp_path / folder, "--out", tmp_path / "m.csv"
    )

    assert (code, err.count("\n")) == (2, 1)


def test_slides_of_nobody_are_refused(clinical, command_line, tmp_path):
    """A folder in which no name matches is a mistake, not an empty manifest."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "foo.svs").touch()

    code, _, err = command_line(
        "manifest", "tcga-brca", "--clinical", clinical("0,Negative,NA,NA,NA,"), "--slides", tmp_path / "slides",
        "--out", tmp_path / "m.csv",
    )  # fmt: skip

    assert (code, "none of the slides' names" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "truth.csv"), "is read by this command"),
        (("--out", "m.csv", "--conflicts", "truth.csv"), "is read by this command"),
        (("--out", "m.csv", "--conflicts", "m.csv"), "are one file"),
    ],
)
def test_the_table_of_labels_is_not_replaced(command_line, tmp_path, monkeypatch, options, said):
    """Neither by the manifest nor by the log of conflicts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "truth.csv").write_text("Case;HER2 status\n1;Positive\n2;Negative\n")
    before = (tmp_path / "truth.csv").read_bytes()

    code, _, err = command_line("manifest", "herohe", "--table", "truth.csv", *options)

    assert (code, (tmp_path / "truth.csv").read_bytes()) == (2, before)
    assert said in " ".join(err.replace("│", " ").split())


def test_a_dicom_series_is_one_slide(tmp_path):
    """Its first file stands for it."""
    for name in ("s1/1.dcm", "s1/2.dcm", "s2/1.dcm", "x.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert [str(path.relative_to(tmp_path)) for path in slides_in(tmp_path)] == [
        "s1/1.dcm",
        "s2/1.dcm",
        "x.svs",
    ]


def test_the_evidence_of_a_run_holds_no_slides(tmp_path):
    """A heatmap opens as a slide does and is none; the slides beside a run are."""
    evidence = ("run/slides/phantom/heatmap.ome.tif", "run/slides/phantom/overlay.png")
    for name in ("run/run.json", "run/phantom.tif", *evidence, "slides/x/x.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert [str(path.relative_to(tmp_path)) for path in slides_in(tmp_path)] == ["run/phantom.tif", "slides/x/x.tif"]


def test_herohe_becomes_a_manifest(command_line, tmp_path):
    """Semicolons, case numbers as people and spreadsheets write them, a case without status, slides without a case."""
    (tmp_path / "slides").mkdir()
    for name in ("1.mrxs", "002.mrxs", "Case_3.mrxs", "9.mrxs"):
        (tmp_path / "slides" / name).touch()
    table, out = tmp_path / "gt.csv", tmp_path / "manifest.csv"
    table.write_text(
        "Case;HER2 Status;Immunohistochemistry\n1.0;Negative;0\nCase 2;Positive;3\n3;Negative;2\n4;;1\n5;Positive;1\n"
    )

    code, told, err = command_line(
        "manifest",
        "herohe",
        "--table",
        table,
        "--slides",
        tmp_path / "slides",
        "--out",
        out,
        "--prefix",
        "herohe-train",
    )

    assert code == 0, err
    rows = {row.patient_id: row for row in read_manifest(out).rows}
    assert {name: (row.her2_status, row.ihc_score) for name, row in rows.items()} == {
        "herohe-train-1": ("negative", "0"),
        "herohe-train-2": ("positive", "3+"),
        "herohe-train-3": ("negative", "2+"),
    }
    assert "-1 no HER2 status" in told
    assert "conflicts and their resolution: 1, in" in told


def test_herohe_labels_a_negative_2_plus_low(tmp_path):
    """Its status includes ISH: a negative 2+ was so by ISH; the stated status is never overruled."""
    table = tmp_path / "gt.csv"
    table.write_text("Case;HER2 Status;IHC\n1;Negative;2\n2;Positive;2\n3;Negative;\n4;Negative;3\n")

    study = read_herohe(table)

    assert [(patient.status, patient.stratum) for patient in study.patients] == [
        ("negative", "low"), ("positive", "positive"), ("negative", "undetermined"), ("negative", "undetermined"),
    ]  # fmt: skip
    assert [conflict.patient_id for conflict in study.conflicts] == ["herohe-4"]


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_herohe, "Case;HER2 Status\n1;Negative\n01;Positive\n;Negative\n4;perhaps\n"),
        (read_her2sc, "Case;Score\n1;0\n01;3+\n;0\n4;perhaps\n"),
    ],
)
def test_a_table_of_cases_tells_all_its_problems(tmp_path, read, text):
    """A case twice, none at all, and a label that means nothing."""
    table = tmp_path / "gt.csv"
    table.write_text(text)

    with pytest.raises(ManifestError) as caught:
        read(table)

    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("12_HER2.ndpi", SlideName("12", "IHC")),
        ("12_HE.ndpi", SlideName("12", "HE")),
        ("H&E/Case 07.ndpi", SlideName("7", "HE")),
        ("IHC/case07.ndpi", SlideName("7", "IHC")),
        ("HER2-01.ndpi", SlideName("1", "IHC")),
        ("12.ndpi", "no case and stain in its name"),
        ("HER2.ndpi", "no case and stain in its name"),
    ],
)
def test_contest_slides_are_known_by_case_and_stain(name, said):
    """The 2 of HER2 is no case number."""
    assert her2sc_slide_namer(None)(Path(name)) == said


def test_a_pattern_names_slides_that_are_called_otherwise():
    """A regular expression with two groups; one without them is refused."""
    name = her2sc_slide_namer(r"(?i)^(?P<stain>he|ihc)(?P<case>\d+)x")

    assert name(Path("IHC012x.ndpi")) == SlideName("12", "IHC")
    assert name(Path("foo.ndpi")) == "not named by the pattern"
    for pattern in ("(", r"(?P<case>\d+)"):
        with pytest.raises(ConfigError, match="--pattern"):
            her2sc_slide_namer(pattern)


def test_a_pattern_keeps_to_its_letter_case():
    """The "HE" of a pattern does not match the beginning of "Her2"."""
    name = her2sc_slide_namer(r"(?P<case>\d+)_(?P<stain>HE|Her2).*")

    assert name(Path("12_Her2.ndpi")) == SlideName("12", "IHC")
    assert name(Path("12_HE.ndpi")) == SlideName("12", "HE")


@pytest.mark.parametrize("policy", ["guideline", "paper"])
def test_the_contest_becomes_a_manifest_of_both_stains(command_line, tmp_path, policy):
    """Its 2+ cases are open by the guideline and positive by the paper; test cases without a score are counted."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for case in ("01", "02", "03"):
        for stain in ("HE", "HER2"):
            (slides / f"{case}_{stain}.ndpi").touch()
    table, out = tmp_path / "gt.csv", tmp_path / "manifest.csv"
    table.write_text("Case No,HER2 Score,Percent\nCase 1,0,5\nCase 2,2+,20\nCase 3,3,90\nCase 4,,\n")

    code, told, err = command_line(
        "manifest", "her2sc", "--table", table, "--slides", slides, "--out", out, "--policy", policy
    )

    assert code == 0, err
    rows = read_manifest(out).rows
    assert {(row.patient_id, row.stain) for row in rows} == {
        (f"her2sc-{case}", stain) for case in (1, 2, 3) for stain in ("HE", "IHC")
    }
    middle = next(row for row in rows if row.patient_id == "her2sc-2")
    assert middle.her2_status == ("positive" if policy == "paper" else "undetermined")
    assert middle.ihc_score == IhcScore.TWO
    assert "-1 no IHC score" in told


def test_columns_by_another_name_are_given(command_line, tmp_path):
    """A column that the aliases do not know is named; one that is not there is told."""
    table = tmp_path / "gt.csv"
    table.write_text("nummer,wert\n1,0\n")

    assert read_her2sc(table, columns={"case": "nummer", "score": "wert"}).n_patients == 1
    code, _, err = command_line("manifest", "her2sc", "--table", table, "--out", tmp_path / "o.csv")
    assert (code, err.count("name it by --column")) == (2, 2)
    code, _, err = command_line(
        "manifest",
        "her2sc",
        "--table",
        table,
        "--out",
        tmp_path / "o.csv",
        "--column",
        "case=no",
        "--column",
        "score=wert",
    )
    assert "has no column 'no' for case" in err
    code, _, err = command_line("manifest", "her2sc", "--table", table, "--out", tmp_path / "o.csv", "--column", "x=no")
    assert (code, "--column x=no" in err) == (2, True)


def test_the_real_columns_are_found_by_their_aliases(public_table):
    """All of the public table's HER2 fields, and none of its decoys."""
    heading = public_table.read_text().partition("\n")[0].replace('"', "").lower().split(",")

    assert all(any(alias in heading for alias in aliases) for aliases in TCGA_COLUMNS.values())
    assert not any("ihc_score" in aliases for aliases in TCGA_COLUMNS.values())
