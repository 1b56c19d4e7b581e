"""Sound files of each format that the program reads, small."""

import json

MANIFEST = b"""slide_id,path,patient_id,stain,ihc_score,ish,her2_status,site,split,mpp,annotations,age
s1,a/s1.svs,p1,HE,3+,,positive,A,train,0.25,s1.geojson,51
s2,a/s2.svs,p1,HE,2+,positive,,A,train,,,51
s3,b/s3.svs,p2,IHC,0,,negative,B,test,0.5,,
"""
MANIFEST_HEADINGS = (
    *("slide_id", "path", "patient_id", "Stain", "ihc_score", "ish", "her2_status", "split", "mpp", "ratio", "copies"),
    *("annotations", "HER2 IHC"),
)
MANIFEST_CELLS = ("s1", "s2", "a.svs", "p1", "p2", "HE", "IHC", "3+", "2+", "positive", "train", "test", "0.25", "2,1")

TCGA = b"""bcr_patient_barcode\ther2_ihc_score\tIHC-HER2\tHER2_fish_status\tHER2_cent17_ratio\tHER2_copy_number
TCGA-A1-A0SB\t3+\tPositive\t[Not Available]\t\t
TCGA-A1-A0SD\t2+\tEquivocal\tNegative\t1.1\t2.3
TCGA-A1-A0SE\t\tNegative\tNot Reported\t'--\t185
"""
TCGA_HEADINGS = (
    *("bcr_patient_barcode", "patient_id", "sample", "her2_ihc_score", "IHC-HER2", "HER2_fish_status"),
    *("HER2_cent17_ratio", "HER2_copy_number", "HER2_final_status", "molecular_tests.gene_symbol"),
)
TCGA_CELLS = (
    *("TCGA-A1-A0SB", "tcga_a1_a0sd", "TCGA-A1-A0SE-01", "A0SB", "3+", "2", "Positive", "Negative", "Equivocal"),
    *("[Not Available]", "'--", "1.1", "6.5", "185"),
)

TESTS = b"""case;IHC;ISH;ratio;copies;faint
1;2+;;2.3;6.5;no
2;0;negative;;;yes
3;3+;;;;
"""
TESTS_HEADINGS = ("case", "IHC", "ISH", "ihc_score", "ratio", "copies", "faint", "her2_status")
TESTS_CELLS = ("1", "0", "1+", "2+", "3+", "positive", "negative", "2.3", "2,3", "6.5", "yes", "no", "group 3")

_RING = [[0, 0], [300, 0], [300, 200], [0, 200], [0, 0]]
_HOLE = [[20, 20], [40, 20], [40, 40], [20, 20]]


def _feature(kind: str, coordinates: object, name: str) -> dict[str, object]:
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


GEOJSON = json.dumps({
    "type": "FeatureCollection",
    "features": [
        _feature("Polygon", [_RING, _HOLE], "Tumor"),
        _feature("MultiPolygon", [[_RING], [[[9, 9], [99, 9], [99, 99], [9, 9]]]], "Necrosis"),
        _feature("Point", [5, 5], "Tumor"),
    ],
}).encode()  # fmt: skip

ASAP = b"""<?xml version="1.0"?><ASAP_Annotations><Annotations>
<Annotation Name="A" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="300" Y="0"/><Coordinate Order="2" X="300" Y="200"/>
</Coordinates></Annotation></Annotations><AnnotationGroups>
<Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group></AnnotationGroups></ASAP_Annotations>"""

IMAGESCOPE = b"""<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="Tumor"><Attributes/>
<Regions><RegionAttributeHeaders/><Region Id="1" Type="0" Text="" NegativeROA="0"><Vertices>
<Vertex X="0" Y="0"/><Vertex X="300" Y="0"/><Vertex X="300" Y="200"/></Vertices></Region>
<Region Id="2" Type="1" NegativeROA="1"><Vertices><Vertex X="9" Y="9"/><Vertex X="99" Y="99"/></Vertices></Region>
</Regions></Annotation></Annotations>"""

NDPVIEW = b"""<?xml version="1.0" encoding="utf-8" standalone="yes"?><annotations><ndpviewstate id="1">
<title>Tumor</title><details/><coordformat>nanometers</coordformat><lens>1</lens><annotation type="freehand"
color="#000000"><closed>1</closed><pointlist><point><x>-20000</x><y>-20000</y></point><point><x>20000</x><y>-20000</y>
</point><point><x>20000</x><y>20000</y></point></pointlist></annotation></ndpviewstate><ndpviewstate id="2">
<title>necrosis</title><annotation type="circle"><x>0</x><y>0</y><radius>5000</radius></annotation></ndpviewstate>
</annotations>"""

SEDEEN = b"""<?xml version="1.0" encoding="UTF-8"?><session software="Sedeen"><image identifier="slide.svs">
<dimensions>2220,2967</dimensions><overlays><graphic type="polygon" name="R" description="tumour"><point-list>
<point>0,0</point><point>100.5,0</point><point>100.5,80</point></point-list></graphic></overlays></image></session>"""

TRAINING = b"""preset = "default"
threshold = 0.4
[selection]
n_tiles = 30
[training]
epochs = 3
"""

PHANTOMS = b"""n = 3
seed = 4
stains = ["HE", "IHC"]
splits = [0.6, 0.2, 0.2]
[slide]
size_px = [1024, 1024]
"""

RULES = json.dumps({
    "weights": {}, "version": 1,
    "operating_point": {
        "threshold": 0.3, "budget": 0.1, "confidence": 0.95, "n_fresh": None, "n_positive": 60, "n_negative": 90,
        "missed": 2, "miss_upper_bound": 0.09, "saved": {"value": 0.4, "low": 0.3, "high": 0.5}, "ppv": None,
        "npv": None, "prevalence": 0.15, "chosen_on": "val", "patient_rule": "mean", "slides_per_patient": [1, 2],
    },
    "calibration": None, "triage": None,
}).encode()  # fmt: skip
