"""Who is who: one key for a patient, however a table writes the name."""

import re

_TCGA = re.compile(r"TCGA[-_. ]([A-Z0-9]{2})[-_. ]([A-Z0-9]{4})(?![A-Z0-9])")


def patient_key(name: str) -> str:
    """The key under which a patient's rows meet.

    A TCGA barcode of a sample, portion or slide names the same patient as its first three fields; case and blanks
    never tell patients apart.

    Example:
        >>> patient_key("TCGA-A1-A0SK-01Z-00-DX1"), patient_key("tcga_a1_a0sk"), patient_key(" Case 7 ")
        ('tcga-a1-a0sk', 'tcga-a1-a0sk', 'case 7')
    """
    if barcode := _TCGA.match(name.strip().upper()):
        return f"tcga-{barcode[1]}-{barcode[2]}".lower()
    return " ".join(name.split()).casefold()
