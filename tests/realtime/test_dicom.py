"""DICOM in the folder source, with the real CT and MR samples that lie inside pydicom."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import read_all

from engines import SourceError
from realtime.sources import open_source
from realtime.sources.dicom import read_dicom
from realtime.sources.images import ImagesSource
from realtime.sources.levels import Window, pixels_from_levels
from realtime.sources.pictures import read_picture

with_pydicom = pytest.mark.skipif(
    importlib.util.find_spec("pydicom") is None, reason="pydicom is not installed"
)
CT, MR = "CT_small.dcm", "MR_small.dcm"
SOFT_TISSUE = Window(-160, 240)


def sample(name: str) -> Path:
    """Return a file inside the package; nothing is fetched."""
    import pydicom

    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not path.exists():
        pytest.skip(f"this pydicom carries no {name}")
    return path


def changed(target: Path, name: str = CT, **values: Any) -> Path:
    """Write a sample with other values; None removes an element."""
    import pydicom

    dataset = pydicom.dcmread(sample(name))
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


def stored(name: str) -> np.ndarray:
    import pydicom

    return np.asarray(pydicom.dcmread(sample(name)).pixel_array).astype(float)


@with_pydicom
def test_a_ct_is_in_hounsfield_units() -> None:
    picture = read_dicom(sample(CT), SOFT_TISSUE)
    assert picture.levels.shape == (128, 128)
    assert np.array_equal(picture.levels, stored(CT) - 1024)
    assert (picture.levels.min(), picture.levels.max()) == (-896, 1167)
    assert picture.origin == "as asked"
    wanted = pixels_from_levels(stored(CT) - 1024, SOFT_TISSUE)
    assert np.array_equal(read_picture(sample(CT), SOFT_TISSUE), wanted)


@with_pydicom
def test_without_a_window_of_its_own_it_is_the_full_range(tmp_path: Path) -> None:
    picture = read_dicom(sample(CT))  # 16 bits, signed, intercept -1024
    assert (picture.window, picture.origin) == (Window(-33792, 31743), "its full range")
    path = changed(tmp_path / "a.dcm", BitsStored=12, HighBit=11, PixelRepresentation=0)
    assert read_dicom(path).window == Window(-1024, 3071)
    falling = changed(tmp_path / "b.dcm", RescaleSlope="-0.5", RescaleIntercept="10")
    assert read_dicom(falling).window == Window(-16373.5, 16394)


@with_pydicom
def test_the_file_has_a_window_of_its_own() -> None:
    picture = read_dicom(sample(MR))  # center 600, width 1600
    assert (picture.window, picture.origin) == (Window(-200, 1399), "the file's own")
    assert np.array_equal(picture.levels, stored(MR))


@with_pydicom
@pytest.mark.parametrize(
    ("values", "window"),
    [
        ({"WindowCenter": 40, "WindowWidth": 401}, Window(-160.5, 239.5)),
        (
            {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
            Window(-160, 240),
        ),
        ({"WindowCenter": [40, 500], "WindowWidth": [401, 2000]}, Window(-160.5, 239.5)),
        ({"WindowCenter": "", "WindowWidth": ""}, Window(-33792, 31743)),
        ({"WindowCenter": 40}, Window(-33792, 31743)),
    ],
)
def test_windows_by_the_standard(tmp_path: Path, values: dict[str, Any], window: Window) -> None:
    assert read_dicom(changed(tmp_path / "a.dcm", **values)).window == window


@with_pydicom
def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = changed(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    plain = read_picture(sample(CT), SOFT_TISSUE).sum(axis=2, dtype=int)
    inverted = read_picture(path, SOFT_TISSUE).sum(axis=2, dtype=int)
    assert (plain + inverted == 765).all()
    source = ImagesSource(path, window=SOFT_TISSUE)
    source.open(None, realtime=False)
    assert "window -160:240 (as asked, inverted)" in source.notes[0]


@with_pydicom
def test_a_folder_of_dicom_is_a_clip(tmp_path: Path) -> None:
    for name in ("10.dcm", "2.DCM"):
        (tmp_path / name).write_bytes(sample(CT).read_bytes())
    source = open_source(tmp_path)
    assert isinstance(source, ImagesSource)
    source.window = Window(-1024, 3071)
    info = source.open(None, realtime=False)
    assert (info.size, info.frames) == ((128, 128), 2)
    assert len(read_all(source, info.size)) == 2
    assert source.notes == ["grey levels: window -1024:3071 (as asked), 766 levels, one every 5.35"]
    assert isinstance(open_source(tmp_path / "10.dcm"), ImagesSource)


@with_pydicom
@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_other_encodings_are_the_same_picture(name: str) -> None:
    assert np.array_equal(read_picture(sample(name)), read_picture(sample(MR)))


@with_pydicom
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtdose.dcm", "has 15 frames; split it into files of one frame"),
        ("SC_rgb_rle_2frame.dcm", "has 2 frames"),
        ("ExplVR_BigEnd.dcm", "is RGB; only grey is read"),
        ("examples_palette.dcm", "is PALETTE COLOR; only grey is read"),
        ("test-SR.dcm", "is a DICOM file without a picture"),
        ("no_meta.dcm", "is no DICOM file"),
        ("MR_truncated.dcm", "is no DICOM picture that can be read: .*less than expected"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_picture(sample(name))
    assert "\n" not in str(caught.value)


@with_pydicom
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RescaleSlope": 0}, "RescaleSlope 0"),
        ({"WindowCenter": 40, "WindowWidth": 1}, "window without width; give one as LOW:HIGH"),
        ({"WindowCenter": 40, "WindowWidth": 0}, "window without width"),
        (
            {"WindowCenter": 40, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"},
            "a window of the form SIGMOID; give one as LOW:HIGH",
        ),
        ({"PhotometricInterpretation": None}, "of no known kind; only grey"),
        ({"Rows": None}, "is no DICOM picture that can be read"),
    ],
)
def test_values_that_make_no_picture(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_picture(changed(tmp_path / "a.dcm", **values))


@with_pydicom
def test_compressed_without_a_decoder(tmp_path: Path) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSLossless

    if get_decoder(JPEGLSLossless).is_available:
        pytest.skip("a JPEG-LS decoder is installed here")
    with pytest.raises(SourceError, match=r"JPEG-LS .* no decoder is installed: pip install"):
        read_picture(sample("MR_small_jpeg_ls_lossless.dcm"))


@with_pydicom
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says what it thinks of broken values
def test_cut_and_flipped_bytes_never_end_in_a_foreign_error(tmp_path: Path) -> None:
    whole = sample(MR).read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / "broken.dcm"
    said: list[str] = []
    for number in range(150):
        data = bytearray(whole)
        if number % 2:
            del data[rng.integers(0, len(data)) :]
        else:
            for place in rng.integers(128, 1500, 8):
                data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            pixels = read_picture(path)
        except SourceError as error:
            said.append(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
    assert len(said) >= 75  # all that were cut
    assert all("\n" not in text and len(text) < 400 for text in said)


def test_without_pydicom_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)  # as Python marks what is not there
    (tmp_path / "a.dcm").write_bytes(bytes(200))
    with pytest.raises(SourceError, match=r"pip install 'pix2live\[medical\]'"):
        read_picture(tmp_path / "a.dcm")
    with pytest.raises(SourceError, match=r"none of the pictures .*pix2live\[medical\]"):
        ImagesSource(tmp_path).open(None, realtime=False)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*: No such file"):
        read_dicom(tmp_path / "a.dcm")
