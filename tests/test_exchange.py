"""Files of other programs: each layout read by an independent reader of FIELD facts, and every way there and back."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from he2her2.errors import ExchangeError, He2Her2Error, OutputError
from he2her2.exchange import (
    LAYOUTS,
    StoredTiles,
    convert_file,
    layout_of,
    read_tiles_file,
    tiles_files,
    write_tiles_files,
)
from he2her2.geometry import Size
from he2her2.manifest import files_of_slides

MPP = 0.2528
CORNERS = np.array([[0, 0], [253, 0], [81_920, 12_345], [199_999, 100_001]], np.int64)
FEATURES = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
TILES = StoredTiles(
    "A.1",
    CORNERS,
    side=253,
    side_px=256,
    mpp_l0=MPP,
    features=FEATURES,
    encoder="uni",
    size_l0=Size(200_320, 100_352),
)


def peer_trident(path):
    """Features, corners in level-0 px, and side in level-0 px, as TRIDENT's users read them."""
    with h5py.File(path) as file:
        attrs = file["coords"].attrs
        assert {"patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap"} <= {
            *attrs
        }
        assert {"name", "savetodir", "level0_width", "level0_height"} <= {*attrs}
        features = file["features"][:] if "features" in file else None
        return features, file["coords"][:], int(attrs["patch_size_level0"])


def peer_clam(folder, name):
    """The same of CLAM's two folders, and its torch file beside."""
    with h5py.File(folder / "h5_files" / f"{name}.h5") as file:
        assert not file["features"].attrs
        features, coords = file["features"][:], file["coords"][:]
    tensor = torch.load(folder / "pt_files" / f"{name}.pt", weights_only=True)
    assert np.array_equal(tensor.numpy(), features)
    with h5py.File(folder / "patches" / f"{name}.h5") as file:
        assert file["coords"].maxshape == (None, 2)
        attrs = file["coords"].attrs
        assert attrs["patch_level"] == 0
        assert np.array_equal(file["coords"][:], coords)
        return features, coords, int(attrs["patch_size"])


def peer_stamp(path):
    """The same of STAMP, in level-0 px of a slide of known scale."""
    with h5py.File(path) as file:
        assert file.attrs["unit"] == "um"
        assert file.attrs["feat_type"] == "tile"
        assert file["coords"].dtype == np.float32
        coords = np.rint(file["coords"][:].astype(float) / MPP).astype(np.int64)
        return file["feats"][:], coords, round(file.attrs["tile_size_um"] / MPP)


def peer_wsinfer(path):
    """The same of WSInfer, which keeps no features."""
    with h5py.File(path) as file:
        coords = file["/coords"]
        assert coords.shape[1] == 4
        assert coords.compression == "gzip"
        assert coords.attrs["patch_spacing_um_px"] == pytest.approx(253 * MPP / 256)
        assert coords.attrs["patch_size"] == 253  # in level-0 px, unlike TRIDENT's
        assert (coords[:, 2] == coords[:, 3]).all()
        return None, coords[:, :2], int(coords[0, 2])


def peer_reads(layout, folder, name="A.1"):
    match layout:
        case "trident":
            return peer_trident(folder / "features_uni" / f"{name}.h5")
        case "clam":
            return peer_clam(folder, name)
        case "stamp":
            return peer_stamp(folder / f"{name}.h5")
    return peer_wsinfer(folder / "patches" / f"{name}.h5")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_peers_read_what_is_written(tmp_path, layout):
    """Corners, side and features arrive bit for bit in every layout that holds them."""
    write_tiles_files(tmp_path, TILES, layout)

    features, corners, side = peer_reads(layout, tmp_path)

    assert np.array_equal(corners, CORNERS)
    assert side == 253
    if layout != "wsinfer":
        assert features.dtype == np.float32
        assert np.array_equal(features, FEATURES)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", ["trident", "clam", "stamp"])
def test_what_is_written_is_read_back(tmp_path, layout, dtype):
    """Features of any precision, corners and scale, bit for bit."""
    features = FEATURES.astype(dtype)
    tiles = StoredTiles("s", CORNERS, side=253, side_px=256, mpp_l0=MPP, features=features)
    written = write_tiles_files(tmp_path, tiles, layout)

    found = read_tiles_file(written[-1], MPP).in_unit("px")

    assert layout_of(written[-1]) == layout
    assert found.features is not None
    assert found.features.dtype == dtype
    assert np.array_equal(found.features, features)
    assert np.array_equal(found.places, CORNERS)
    assert found.side == pytest.approx(253)


@given(
    corners=st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 400_000)), max_size=20),
    mpp=st.floats(0.1, 2.0),
)
def test_micrometres_and_back_are_the_same_pixels(corners, mpp):
    """float32 µm name every px of any slide."""
    tiles = StoredTiles("s", np.array(corners, np.int64).reshape(-1, 2), side=256, mpp_l0=mpp)

    back = tiles.in_unit("um").in_unit("px")

    assert np.array_equal(back.places, tiles.places)
    assert back.side == pytest.approx(256)


@pytest.mark.parametrize("way", [("clam", "trident"), ("stamp", "trident"), ("trident", "stamp"), ("stamp", "clam")])
def test_conversions_lose_nothing_that_the_target_holds(tmp_path, way):
    """From one peer's file to another's."""
    source, target = way
    written = write_tiles_files(tmp_path / "from", TILES, source)
    name = "uni" if source != "clam" else "unknown"

    convert_file(written[-1], tmp_path / "to", target, mpp_l0=MPP)
    if target == "trident" and name != "uni":
        (tmp_path / "to" / "features_unknown").rename(tmp_path / "to" / "features_uni")
    features, corners, side = peer_reads(target, tmp_path / "to")

    assert np.array_equal(features, FEATURES)
    assert np.array_equal(corners, CORNERS)
    assert side == 253


def test_attributes_survive_in_the_same_layout(tmp_path):
    """TRIDENT's own, also those we know nothing of."""
    path = tmp_path / "features_uni" / "A.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["features"] = FEATURES
        file["coords"] = CORNERS
        stated = {"patch_size": 512, "patch_size_level0": 1024, "level0_magnification": 40, "target_magnification": 20}
        file["coords"].attrs.update(stated | {"overlap": 0, "custom": "None"})

    convert_file(path, tmp_path / "out", "trident")

    with h5py.File(tmp_path / "out" / "features_uni" / "A.h5") as file:
        assert dict(file["coords"].attrs) == stated | {"overlap": 0, "custom": "None"}


@pytest.mark.parametrize("encoder", ["../../up", "/elsewhere/up", "hf-hub:Lab/UNI2-h", "x" * 300, "a\nb"])
def test_no_encoders_name_leads_out_of_the_folder(tmp_path, encoder):
    """It is whatever a file says: features were written beside --out, or not at all; 200 letters of it are read."""
    (path,) = write_tiles_files(tmp_path / "out", replace(TILES, encoder=encoder), "trident")

    assert path.parent.parent == tmp_path / "out"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert read_tiles_file(path).encoder == encoder[:200]


def test_attributes_may_be_arrays_of_one(tmp_path):
    """As R and MATLAB write them: the encoder was called "['uni']", and µm were said not to be stated."""
    for layout in ("trident", "stamp"):
        (path,) = write_tiles_files(tmp_path, TILES, layout)
        with h5py.File(path, "r+") as file:
            for attrs in (file.attrs, *(file[name].attrs for name in file)):
                attrs.update({name: np.array([value], object) for name, value in attrs.items() if value == str(value)})

        assert read_tiles_file(path).encoder == "uni"


def test_micrometres_are_not_guessed(tmp_path):
    """TRIDENT states a magnification only: 40x may be .22 or .26 µm."""
    tiles = StoredTiles("A", CORNERS, side=256, side_px=256, features=FEATURES)
    (path,) = write_tiles_files(tmp_path / "t", tiles, "trident")

    with pytest.raises(ExchangeError, match=r"A: the µm per level-0 px are not in its file; pass --mpp"):
        convert_file(path, tmp_path / "s", "stamp")
    assert not (tmp_path / "s").exists()


def test_a_wrong_scale_is_seen(tmp_path):
    """Corners in µm that are no whole px of the scale that was given."""
    (path,) = write_tiles_files(tmp_path, TILES, "stamp")

    with pytest.raises(ExchangeError, match="not whole px"):
        convert_file(path, tmp_path / "out", "trident", mpp_l0=0.5)


@pytest.mark.parametrize("mpp", [250, -0.25, 0, float("nan")])
def test_a_scale_of_no_microscope_is_refused(tmp_path, command_line, mpp):
    """A scale in nm made tiles of 63 mm, and -0.25 places left of the slide."""
    write_tiles_files(tmp_path / "t", TILES, "trident")

    code, _, error = command_line(
        "convert", tmp_path / "t" / "features_uni", "--to", "stamp", "--out", tmp_path / "s", "--mpp", mpp
    )

    assert code == 1
    assert f"{mpp:g} µm per level-0 px are no microscope's; give µm per px, 0.05 to 10" in error
    assert not (tmp_path / "s").exists()


def stamp_tiles(mpp, tile_um, most_px, size_px):
    """Corners in µm as STAMP 2 states them, and in px as it reads them: tiles are cut out of blocks of whole px."""
    across = max(int(most_px * mpp // tile_um), 1)
    side = int(np.ceil(tile_um / mpp))
    stated, read = [], []
    for y in range(0, size_px - side * across, side * across):
        for x in range(0, size_px - side * across, side * across):
            for j in range(across):
                for i in range(across):
                    stated.append((x * mpp + i * tile_um, y * mpp + j * tile_um))
                    read.append((x + i * side, y + j * side))
    return np.array(stated, np.float32), np.array(read)


@pytest.mark.parametrize(
    ("mpp", "tile_um", "most_px"), [(0.2528, 256, 4096), (0.233, 112, 1024), (0.4942, 256, 4096), (0.25, 256, 1024)]
)
def test_tiles_of_stamp_are_where_it_read_them(tmp_path, mpp, tile_um, most_px):
    """Its µm lie between pixels; the pixels that its encoder saw are found, and another scale is seen."""
    stated, read = stamp_tiles(mpp, tile_um, most_px, 30_000)
    with h5py.File(tmp_path / "A.h5", "w") as file:
        file["coords"], file["feats"] = stated, np.ones((len(stated), 3), np.float16)
        file.attrs.update({"unit": "um", "feat_type": "tile", "tile_size_um": float(tile_um), "tile_size_px": 224})

    found = read_tiles_file(tmp_path / "A.h5", mpp)

    assert np.array_equal(found.in_unit("px").places, read)
    if mpp != 0.25:
        with pytest.raises(ExchangeError, match="correct --mpp"):
            read_tiles_file(tmp_path / "A.h5", mpp * 1.07).in_unit("px")


@pytest.mark.parametrize("columns", [2, 4])
def test_wsinfer_states_its_tiles_in_level_0_px(tmp_path, columns):
    """Two columns in old files, four in new ones; the px that its network sees follow from both scales."""
    with h5py.File(tmp_path / "A.h5", "w") as file:
        file["coords"] = np.column_stack([CORNERS, np.full((4, 2), 692)])[:, :columns]
        file["coords"].attrs.update({"patch_size": 692, "patch_level": 0, "patch_spacing_um_px": 0.5})

    found = read_tiles_file(tmp_path / "A.h5", 0.2528)
    convert_file(tmp_path / "A.h5", tmp_path / "c", "clam")

    assert (found.side, found.side_px) == (692, 350)
    assert found.tile_um == pytest.approx(692 * 0.2528)
    with h5py.File(tmp_path / "c" / "patches" / "A.h5") as file:
        assert {"patch_size", "patch_level", "downsample", "name", "save_path"} == {*file["coords"].attrs}
    assert layout_of(tmp_path / "c" / "patches" / "A.h5") == "clam"


def test_a_scale_that_is_given_is_kept(tmp_path):
    """TRIDENT has no place for µm; ours stand beside its attributes."""
    tiles = StoredTiles("A", CORNERS, side=256, side_px=256, features=FEATURES)
    (path,) = write_tiles_files(tmp_path / "t", tiles, "trident")

    (written,) = convert_file(path, tmp_path / "to", "trident", mpp_l0=0.25).written

    assert read_tiles_file(written).mpp_l0 == 0.25


def test_torch_files_find_their_coordinates(tmp_path):
    """In CLAM's folders, in TRIDENT's, or nowhere: then they have features alone, until --coords names them."""
    write_tiles_files(tmp_path / "job", TILES.with_mpp(None), "trident")
    (tmp_path / "job" / "features_uni").rename(tmp_path / "job" / "patches")
    (tmp_path / "job" / "patches" / "A.1.h5").rename(tmp_path / "job" / "patches" / "A.1_patches.h5")
    (tmp_path / "job" / "features_uni").mkdir()
    tensor = torch.nn.Parameter(torch.from_numpy(FEATURES))  # saved with its gradient, as happens
    torch.save(tensor, tmp_path / "job" / "features_uni" / "A.1.pt")
    torch.save(tensor, tmp_path / "A.1.pt")

    beside, alone = read_tiles_file(tmp_path / "job" / "features_uni" / "A.1.pt"), read_tiles_file(tmp_path / "A.1.pt")
    with pytest.raises(ExchangeError, match="features without coordinates; keep patches/"):
        convert_file(tmp_path / "A.1.pt", tmp_path / "out", "trident")
    convert_file(
        tmp_path / "A.1.pt", tmp_path / "out", "trident", coords=tmp_path / "job" / "patches" / "A.1_patches.h5"
    )

    assert (beside.encoder, beside.side, len(alone)) == ("uni", 253, 4)
    assert np.array_equal(beside.places, CORNERS)
    assert alone.centres_um is None
    assert np.array_equal(read_tiles_file(tmp_path / "out" / "features_unknown" / "A.1.h5").places, CORNERS)


def test_clam_without_a_downsample_is_refused_on_a_coarser_level(tmp_path):
    """Its tiles would be taken for a quarter of their side."""
    (tmp_path / "patches").mkdir()
    with h5py.File(tmp_path / "patches" / "s.h5", "w") as file:
        file["coords"] = np.array([[0, 0], [1024, 0]])
        file["coords"].attrs.update({"patch_size": 256, "patch_level": 1})

    with pytest.raises(ExchangeError, match="of a coarser level and it has no downsample"):
        read_tiles_file(tmp_path / "patches" / "s.h5")


def test_clam_level_and_downsample_make_the_side(tmp_path):
    """Tiles of 256 px at a level four times coarser cover 1 024 level-0 px."""
    path = tmp_path / "patches" / "A.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["coords"] = CORNERS
        file["coords"].attrs.update({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)})

    assert read_tiles_file(path).side == 1024


def test_features_alone_take_their_size_from_coordinates(tmp_path):
    """CLAM's h5_files say nothing of the tiles; --coords does, if it is of the same tiles."""
    with h5py.File(tmp_path / "A.h5", "w") as file:
        file["features"], file["coords"] = FEATURES, CORNERS
    coords = write_tiles_files(tmp_path / "c", StoredTiles("A", CORNERS, side=512), "clam")[0]
    other = write_tiles_files(tmp_path / "o", StoredTiles("A", CORNERS + 1, side=512), "clam")[0]

    with pytest.raises(ExchangeError, match="how large a tile is; pass --coords"):
        convert_file(tmp_path / "A.h5", tmp_path / "out", "trident")
    with pytest.raises(ExchangeError, match="has other tiles"):
        convert_file(tmp_path / "A.h5", tmp_path / "out", "trident", coords=other)
    convert_file(tmp_path / "A.h5", tmp_path / "out", "trident", coords=coords)

    assert read_tiles_file(tmp_path / "out" / "features_unknown" / "A.h5").side == 512


def test_coordinates_in_um_complete_features_in_px(tmp_path):
    """Their side was taken for level-0 px: tiles of 253 px became 64 px wide; all else that the two state is kept."""
    with h5py.File(tmp_path / "A.1.h5", "w") as file:
        file["features"], file["coords"] = FEATURES[None], CORNERS  # in an axis of length one, as CLAM at times
    (coords,) = write_tiles_files(tmp_path / "c", TILES, "stamp")

    (written,) = convert_file(tmp_path / "A.1.h5", tmp_path, "trident", mpp_l0=MPP, coords=coords).written

    found = read_tiles_file(written)
    assert found.features is not None
    assert found.centres_um is not None
    assert np.array_equal(found.features, FEATURES)
    assert (found.side_px, found.mpp_l0) == (256, MPP)
    assert found.side == pytest.approx(253)
    np.testing.assert_allclose(found.centres_um, (CORNERS + 253 / 2) * MPP)
    with pytest.raises(ExchangeError, match="pass --mpp"):
        convert_file(tmp_path / "A.1.h5", tmp_path, "trident", coords=coords)


def elsewhere(file):
    layout = h5py.VirtualLayout((1, 4, 6), np.float32)
    layout[0] = h5py.VirtualSource("other.h5", "features", (4, 6))
    file.create_virtual_dataset("features", layout)


BAD_PARTS = {
    "slide features": {"features": FEATURES[0]},
    "other number": {"features": FEATURES[:2]},
    "nan": {"features": np.full((4, 2), np.nan, np.float32)},
    "external": {"features": h5py.ExternalLink("/etc/hostname", "x")},
    "old stamp": {"feats": FEATURES},
    "a group": {"features/uni": FEATURES, "coords": CORNERS.astype(np.int32)},
    "nowhere": {"features": FEATURES, "coords": np.full((4, 2), 2**63, np.uint64)},
    "far": {"features": FEATURES, "coords": np.full((4, 2), 1e300)},
    "nothing": {"images": FEATURES},
    "cut": {"features": FEATURES},
}
BAD_FILES = {
    "patient": lambda file: file.attrs.update({"feat_type": "patient", "unit": "um"}),
    "rows": lambda file: file.create_dataset("features", (10**12, 2), np.float32, chunks=(1024, 2)),
    "bytes": lambda file: file.create_dataset("features", (1, 5_000_000, 1536), np.float32, chunks=(1, 64, 1536)),
    "elsewhere": elsewhere,
}


def write_bad(path, kind):
    """A file whose coordinates are right, if nothing else is said."""
    with h5py.File(path, "w") as file:
        for name, value in ({"coords": CORNERS} | BAD_PARTS.get(kind, {})).items():
            if (kind, name) != ("nothing", "coords"):
                file[name] = value
        if kind in BAD_FILES:
            BAD_FILES[kind](file)
        if kind == "patient":
            file["feats"] = FEATURES
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize("layout", ["trident", "clam", "wsinfer"])
def test_corners_between_px_are_the_nearest_px(tmp_path, layout):
    """Programs that compute in floats leave 1023.9999; cut off, every tile was one px beside its place."""
    beside = replace(TILES, corners=CORNERS - 0.0001, features=None)

    (path,) = write_tiles_files(tmp_path, beside, layout)
    with h5py.File(path, "r+") as file:
        attributes, rows = dict(file["coords"].attrs), file["coords"][:].astype(np.float64)
        del file["coords"]
        file["coords"] = rows - 0.0001
        file["coords"].attrs.update(attributes)

    assert np.array_equal(read_tiles_file(path, MPP).grid(256).origins_l0, CORNERS)


@pytest.mark.parametrize("kind", [*BAD_PARTS, *BAD_FILES])
def test_a_damaged_file_is_one_line(tmp_path, kind):
    """Cut short, of another kind, or hostile."""
    write_bad(tmp_path / "A.h5", kind)

    with pytest.raises(ExchangeError) as stop:
        read_tiles_file(tmp_path / "A.h5")

    assert "\n" not in str(stop.value)


def test_features_of_a_slide_are_called_so(tmp_path):
    """TRIDENT keeps them beside those of tiles, in slide_features_*."""
    write_bad(tmp_path / "A.h5", "slide features")

    with pytest.raises(ExchangeError, match="one vector, of a whole slide"):
        read_tiles_file(tmp_path / "A.h5")


def test_no_pickle_is_executed(tmp_path):
    """A torch file that would run a command is refused."""

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    (tmp_path / "pt_files").mkdir()
    torch.save(Bomb(), tmp_path / "pt_files" / "A.pt")

    with pytest.raises(ExchangeError, match="no file of one tensor"):
        read_tiles_file(tmp_path / "pt_files" / "A.pt")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(1).as_strided((10**6, 10**6), (0, 0)),  # 4 TB by its own account
        {"features": torch.ones(4, 2)},
        torch.ones(4, 2).to_sparse(),
        torch.ones(4, 2, dtype=torch.int64),
        torch.ones(4),
        np.ones((4, 2)),
    ],
)
def test_a_torch_file_of_something_else_is_one_line(tmp_path, value):
    """Whatever it holds, no memory is taken for it."""
    torch.save(value, tmp_path / "A.pt")

    with pytest.raises(ExchangeError) as stop:
        read_tiles_file(tmp_path / "A.pt")

    assert str(stop.value).isprintable()  # torch underlines its own words


def test_a_folder_is_searched_as_its_program_fills_it(tmp_path):
    """Flat, or CLAM's h5_files; what is in neither is told with the folders that are there."""
    write_tiles_files(tmp_path / "clam", TILES, "clam")
    write_tiles_files(tmp_path / "trident", TILES, "trident")

    assert [*tiles_files(tmp_path / "clam")] == ["A.1"]
    assert [*tiles_files(tmp_path / "trident" / "features_uni")] == ["A.1"]
    with pytest.raises(He2Her2Error, match="give one of its folders features_uni"):
        tiles_files(tmp_path / "trident")


@pytest.mark.parametrize(
    ("files", "slides", "found"),
    [
        (["S1.ome"], {"S1": "S1.ome.tif"}, {"S1": "S1.ome"}),
        (["S1"], {"S1.svs": "a/S1.svs"}, {"S1.svs": "S1"}),
        (["S1.svs"], {"S1": "a/S1.svs"}, {"S1": "S1.svs"}),
        (["T-1.UUID"], {"T-1": "T-1.UUID.svs"}, {"T-1": "T-1.UUID"}),
        (["1", "2"], {"1": "2.svs", "2": "1.svs"}, {"1": "1", "2": "2"}),
        (["2"], {"1": "2.svs", "2": "3.svs"}, {"2": "2"}),
        (["S"], {"A": "a/S.svs", "B": "b/S.svs"}, {}),
        (["S.svs", "S.ome"], {"S": "S.svs"}, {}),
    ],
)
def test_a_file_of_tiles_is_found_by_the_slide_or_its_file(files, slides, found):
    """As far as that is one file of one slide; the slide's own name outranks that of its file."""
    files = {name: Path(f"{name}.h5") for name in files}

    by_slide = files_of_slides(files, {slide_id: Path(path) for slide_id, path in slides.items()})

    assert by_slide == {slide_id: files[name] for slide_id, name in found.items()}


def test_the_command_converts_a_folder(tmp_path, command_line):
    """What is lost is said; a slide that cannot be converted fails alone."""
    write_tiles_files(tmp_path / "t", TILES, "stamp")
    (tmp_path / "t" / "B.h5").write_bytes(b"no HDF5")

    code, out, err = command_line("convert", tmp_path / "t", "--to", "clam", "--out", tmp_path / "c", "--mpp", MPP)

    assert code == 1
    assert "1 slides, 4 tiles, from stamp to clam" in out
    assert "not kept the encoder's name" in out
    assert err.startswith("B: FAILED")
    assert np.array_equal(peer_clam(tmp_path / "c", "A.1")[0], FEATURES)


def bytes_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.[hp][5t]")}


@pytest.mark.parametrize(
    ("source", "folder", "target", "out"),
    [
        ("stamp", ".", "stamp", "."),
        ("trident", "features_uni", "stamp", "features_uni"),
        ("clam", "h5_files", "clam", "."),
        ("clam", "pt_files", "clam", "."),
        ("clam", "h5_files", "wsinfer", "."),  # over the coordinates beside it, which are read too
        ("clam", "pt_files", "stamp", "h5_files"),
        ("wsinfer", "patches", "clam", "."),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_is_read_is_not_replaced(tmp_path, command_line, linked, source, folder, target, out):
    """By the command that reads it, on whatever way its folder is named."""
    write_tiles_files(tmp_path / "job", TILES, source)
    before = bytes_in(tmp_path / "job")
    (tmp_path / "link").symlink_to(tmp_path / "job")
    there = tmp_path / ("link" if linked else "job") / out

    code, _, err = command_line("convert", tmp_path / "job" / folder, "--to", target, "--out", there, "--mpp", MPP)

    assert code == 2
    assert "is read by this command" in " ".join(err.split())
    assert bytes_in(tmp_path / "job") == before


def test_coordinates_that_are_read_are_not_replaced(tmp_path):
    """Those of --coords, which features that stand alone need."""
    write_tiles_files(tmp_path / "c", replace(TILES, features=None), "wsinfer")
    torch.save(torch.from_numpy(FEATURES), tmp_path / "A.1.pt")
    coords = tmp_path / "c" / "patches" / "A.1.h5"
    before = coords.read_bytes()

    with pytest.raises(OutputError, match="is read by this command"):
        convert_file(tmp_path / "A.1.pt", tmp_path / "c", "clam", mpp_l0=MPP, coords=coords)
    assert coords.read_bytes() == before


def test_the_command_takes_the_scale_from_a_manifest(tmp_path, command_line):
    """Each slide has its own µm per px; one that cannot be read is told."""
    tiles = StoredTiles("A", CORNERS, side=256, side_px=256, features=FEATURES)
    write_tiles_files(tmp_path / "t", tiles, "trident")
    (tmp_path / "m.csv").write_text("slide_id,path,patient_id,mpp\nA,A.svs,p,0.5\n")

    command = ("convert", tmp_path / "t" / "features_unknown", "--to", "stamp", "--manifest", tmp_path / "m.csv")

    code, _, _ = command_line(*command, "--out", tmp_path / "s")

    assert code == 0
    with h5py.File(tmp_path / "s" / "A.h5") as file:
        assert file["coords"][1].tolist() == [126.5, 0]
    (tmp_path / "m.csv").write_text("slide_id,path,patient_id,mpp\nA,A.svs,p,O.5\n")
    assert "line 2: mpp: 'O.5' is no number" in command_line(*command, "--out", tmp_path / "o")[2]


ODD: tuple[object, ...] = (
    0,
    0.3,
    -1,
    1e-300,
    1e300,
    float("nan"),
    10**18,
    3 + 4j,
    "None",
    b"\xff",
    "\x1b[2J",
    "a" * 3000,
    [],
    [256.0, 1.0],
)
"""Values that no program writes."""

_SOUND = {
    "patch_size": 256, "patch_size_level0": 512, "target_magnification": 20, "mpp_level0": 0.25, "side_level0": 512.0,
    "patch_level": 0, "level_dim": (512, 512), "patch_spacing_um_px": 0.5, "unit": "um", "tile_size_um": 128.0,
    "feat_type": "tile", "name": "s",
}  # fmt: skip


@settings(max_examples=20)
@example("features", {"patch_size": 1e300}, set(), 2, 1)
@example("features", {"name": b"\xff"}, {"patch_spacing_um_px"}, 2, 1)
@example("feats", {"tile_size_um": 3 + 4j}, set(), 2, 1)
@example("", {"side_level0": 0.3}, {"patch_size", "patch_spacing_um_px"}, 2, 1)
@example("features", {"level_dim": (np.nan, 7)}, {"patch_size_level0", "patch_spacing_um_px"}, 2, 1)
@given(
    kind=st.sampled_from(["features", "feats", ""]),
    stated=st.dictionaries(st.sampled_from(sorted(_SOUND)), st.sampled_from(ODD), max_size=3),
    left_out=st.sets(st.sampled_from(sorted(_SOUND)), max_size=3),
    columns=st.sampled_from([2, 4]),
    value=st.sampled_from([1, 0.25, -3, 1e20, np.float16(7), np.uint64(2**64 - 1)]),
)
def test_whatever_a_file_states_is_converted_or_refused_in_one_line(tmp_path, kind, stated, left_out, columns, value):
    """Nothing that is no number, no Unicode or of no slide is a traceback, a warning, or a message of pages."""
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        if kind:
            file["features" if kind == "features" else "feats"] = FEATURES[:2]
        file["coords"] = np.full((2, columns), value)
        for attributes in (file.attrs, file["coords"].attrs):
            attributes.update({name: own for name, own in (_SOUND | stated).items() if name not in left_out})

    messages = []
    for layout in LAYOUTS:
        try:
            convert_file(path, tmp_path / "out", layout, mpp_l0=0.25)
        except ExchangeError as error:
            messages.append(str(error))

    assert max(map(len, messages), default=0) < 1000


@pytest.mark.parametrize("layout", ["trident", "clam", "stamp"])
def test_a_name_that_is_no_unicode_is_refused(tmp_path, layout):
    """HDF5 cannot hold it; nothing is left of the file."""
    with pytest.raises(ExchangeError, match=r"cannot be written .*rename it"):
        write_tiles_files(tmp_path, replace(TILES, slide_id="b\udcfc", encoder="\udcfc"), layout)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
