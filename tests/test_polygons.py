"""Outlines: the painter itself, ImageScope XML, text, and LIDC readings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_kit import series, written
from drawing_kit import decoded, draw, drawing, reference_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from readers_kit import refused
from scipy import ndimage
from skimage.draw import polygon

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import lidc_xml, polygon_text, polygon_xml, polygons
from medcurate.types import Drawing, Patch, Reference, Structure

HEIGHT, WIDTH = 40, 50
PICTURE = Reference(shape=(HEIGHT, WIDTH))


def filled(outlines: list[np.ndarray], path: polygons.OnPath = "half") -> np.ndarray:
    whole = np.zeros((HEIGHT, WIDTH), bool)
    patch = polygons.fill(outlines, HEIGHT, WIDTH, path=path)
    if patch is not None:
        (row, column), (rows, columns) = patch.start, patch.mask.shape
        whole[row : row + rows, column : column + columns] = patch.mask
    return whole


# The painter

corner = st.tuples(st.floats(-8, WIDTH + 8), st.floats(-8, HEIGHT + 8))
lattice = st.tuples(st.integers(-3, WIDTH + 3), st.integers(-3, HEIGHT + 3))


@settings(max_examples=150, deadline=None)
@given(st.lists(corner, min_size=3, max_size=9))
@example([(0.0, 0.0), (0.0, 5e-324), (1.0, 0.0)])  # a side that is all but level
@example([(0.0, 0.0), (50.0, 5e-324), (30.0, 20.0)])
def test_any_outline_is_filled_as_skimage_fills_it(points):
    outline = np.array(points)
    rows, columns = polygon(outline[:, 1], outline[:, 0], (HEIGHT, WIDTH))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[rows, columns] = True
    inside = filled([outline], "inside")
    differing = filled([outline]) ^ expected
    assert not (differing & ~inside).any() or np.unique(outline, axis=0).shape[0] < 3
    assert not (differing & filled([outline], "outside")).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(lattice, min_size=3, max_size=8))
def test_paths_between_centres_are_found_exactly(points):
    """Corners on centres: which centres lie on a side is a question of whole numbers."""
    outline = np.array(points)
    on_path = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        straight = (x - x0) * (y1 - y0) == (y - y0) * (x1 - x0)
        between = (np.minimum(x0, x1) <= x) & (x <= np.maximum(x0, x1))
        between &= (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))
        on_path |= straight & between
    inside, outside = filled([outline.astype(float)], "inside"), filled([outline.astype(float)], "outside")
    assert np.array_equal(inside & ~outside, on_path)


@settings(max_examples=50, deadline=None)
@given(st.lists(corner, min_size=4, max_size=8), st.integers(1, 6))
def test_parts_of_an_outline_share_no_pixel_and_lose_none(points, cut):
    """A chord splits an outline in two; together they are the whole, also where the chord meets centres."""
    points = [(round(x * 2) / 2, round(y * 2) / 2) for x, y in points]
    cut = min(cut, len(points) - 2)
    first, second = np.array(points[: cut + 2]), np.array([*points[cut + 1 :], points[0]])
    assert np.array_equal(filled([first]) ^ filled([second]), filled([np.array(points)]))
    assert np.array_equal(filled([first, second]), filled([np.array(points)]))


def test_repeated_points_and_direction_do_not_matter():
    outline = np.array([[3.2, 4.1], [30.5, 6], [25, 33.3], [8, 20]])
    expected = filled([outline])
    assert np.array_equal(filled([outline[::-1]]), expected)
    assert np.array_equal(filled([np.repeat(outline, 3, axis=0)]), expected)
    assert np.array_equal(filled([np.vstack([outline, outline[:1]])]), expected)


def test_a_comb_of_many_crossings_is_filled_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(polygons, "_CROSSINGS_AT_ONCE", 97)
    teeth = np.array([[x * 0.37, (x % 2) * 60.0 - 10] for x in range(130)] + [[50, -20], [0, -20]])
    pieces = filled([teeth])
    monkeypatch.undo()
    assert np.array_equal(filled([teeth]), pieces)
    assert pieces.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_coordinates_that_are_no_pixels(value):
    with refused(Reason.BAD_LABEL):
        filled([np.array([[1, 1], [5, value], [9, 9]])])


@pytest.mark.parametrize(
    "outline", [[[60, 5], [70, 5], [70, 9]], [[5.1, 5.1], [5.2, 5.1], [5.2, 5.2]], [[1, 1], [2, 2]]]
)
def test_outlines_without_pixels(outline):
    assert polygons.fill([np.array(outline, float)], HEIGHT, WIDTH, path="half") is None


# ImageScope XML


def xml(*annotations: str) -> bytes:
    return f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">{"".join(annotations)}</Annotations>'.encode()


def annotation(*outlines: np.ndarray, name: str = "", attribute: str = "", region: str = "") -> str:
    regions = "".join(
        f'<Region Id="1" NegativeROA="0" Type="0" {region}><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in outline)
        + "</Vertices></Region>"
        for outline in outlines
    )
    kind = f'<Attributes><Attribute Name="{attribute}" Id="0" Value=""/></Attributes>' if attribute else ""
    return f'<Annotation Id="1" Name="{name}">{kind}<Regions><RegionAttributeHeaders/>{regions}</Regions></Annotation>'


NUCLEI = [
    np.array([[3.0, 3], [12, 3], [12, 9], [3, 9]]),
    np.array([[9.0, 6], [18, 6], [18, 15], [9, 15]]),
    np.array([[30.0, 20], [39, 20], [34.5, 30]]),
]


def stored(folder: Path, content: bytes, name: str = "a.xml") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_every_region_is_an_object(tmp_path):
    """As in MoNuSeg: one annotation, no class; coordinates count from the corner of the first pixel."""
    path = stored(tmp_path, xml(annotation(*NUCLEI, attribute="Description")))
    found = draw(polygon_xml, PICTURE, path)
    assert [mask.sum() for _, mask in found] == [54, 81, found[2][1].sum()]
    assert np.array_equal(np.argwhere(found[0][1]).min(axis=0), (3, 3))
    layers = decoded(drawing(polygon_xml, PICTURE, path), {"*": "nucleus"}, objects=True)
    assert all(layer.instances and layer.terms == {0: "nucleus"} for layer in layers)
    assert sorted(value for layer in layers for value in np.unique(layer.labels) if value) == [1, 2, 3]
    sizes = {int(v): int((layer.labels == v).sum()) for layer in layers for v in np.unique(layer.labels) if v}
    assert sizes == {1: 54, 2: 81, 3: int(found[2][1].sum())}


def test_classes_stand_in_attributes(tmp_path):
    """As in MoNuSAC; those that a source does not want are ignored by name."""
    path = stored(
        tmp_path,
        xml(
            annotation(NUCLEI[0], attribute="Epithelial"),
            annotation(NUCLEI[2], attribute="Lymphocyte"),
            annotation(NUCLEI[1], attribute="Ambiguous"),
        ),
    )
    labels = {"Epithelial": "nucleus", "Lymphocyte": "cell"}
    layers = decoded(drawing(polygon_xml, PICTURE, path), labels, objects=True, ignore=["Ambig*"])
    assert [(layer.terms, int(layer.labels.max())) for layer in layers] == [
        ({0: "nucleus"}, 1),
        ({0: "cell"}, 1),
    ]
    with refused(Reason.BAD_LABEL, detail="neither in [labels]"):
        decoded(drawing(polygon_xml, PICTURE, path), labels)


def test_more_objects_than_sixteen_bits():
    dot = np.ones((1, 1), bool)
    dots = [Patch((row, column), dot) for row in range(300) for column in range(220)]
    found = Drawing(Reference(shape=(300, 300)), [Structure((), lambda dot=dot: dot) for dot in dots])
    (layer,) = decoded(found, {"*": "nucleus"}, objects=True)
    assert len(np.unique(layer.labels)) == 300 * 220 + 1


@pytest.mark.parametrize("region", ['NegativeROA="1"', 'Type="2"'])
def test_regions_that_are_no_outline(tmp_path, region):
    content = xml(annotation(NUCLEI[0])).replace(b'NegativeROA="0" Type="0" ', f"{region} ".encode())
    with refused(Reason.BAD_LABEL):
        draw(polygon_xml, PICTURE, stored(tmp_path, content))


BOMB = b"""<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Annotations><Annotation Name="&b;"/></Annotations>"""
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Annotations><Annotation>&x;</Annotation></Annotations>'


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        OUTSIDE,
        b"<a>" * 100_000,
        b"<Annotations>" + b"<a>" * 64 + b"</a>" * 64 + b"</Annotations>",
        b"",
        b"<html><body>please log in</body></html>",
        xml(annotation(*NUCLEI))[:-40],
        xml(annotation(*NUCLEI)).replace(b'X="12', b'X="CANARY', 1),
        b"\xff\xfe<",
        b"<Annotations><Annotation><Region><Vertices><Vertex X='1' Y='1'/></Vertices></Region></Annotation>"
        b"</Annotations>",
        b"<LidcReadMessage><unblindedReadNodule><roi/></unblindedReadNodule></LidcReadMessage>",
    ],
    ids=[
        "bomb",
        "outside",
        "deep",
        "nested",
        "empty",
        "html",
        "cut",
        "text",
        "binary",
        "no regions",
        "no session",
    ],
)
@pytest.mark.parametrize("reader", [polygon_xml, lidc_xml])
def test_hostile_xml(tmp_path, content, reader):
    path = stored(tmp_path, content)
    reference = PICTURE if reader is polygon_xml else ct(tmp_path / "ct")
    with refused(Reason.CORRUPT, Reason.UNREADABLE):
        draw(reader, reference, path, **({} if reader is polygon_xml else {"agreement": 1}))


def test_outlines_in_pixels_need_a_picture(tmp_path):
    path = stored(tmp_path, xml())
    volume = Reference(shape=(5, 5, 5), affine=np.eye(4))
    for reader in (polygon_xml, polygon_text):
        with refused(Reason.GEOMETRY):
            draw(reader, volume, path)


# Text


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("3.5 3.5\n12.5 3.5\n12.5 9.5\n3.5 9.5\n", {}),
        ("\ufeffx;y\r\n3.5;3.5\r\n12.5;3.5\r\n12.5;9.5\r\n3.5;9.5", {"header_lines": 1}),
        ("   3.5000000e+00   3.5\n 12.5\t3.5\n12.5, 9.5\n3.5,9.5,\n\n\n", {}),
        ("3.5 3.5\n3.5 12.5\n9.5 12.5\n9.5 3.5", {"columns": "yx"}),
        ("3 3\n12 3\n12 9\n3 9", {"pixel_centre": 0.0}),
    ],
    ids=["plain", "header", "mixed", "rows-first", "centres"],
)
def test_text(tmp_path, text, options):
    ((names, mask),) = draw(polygon_text, PICTURE, stored(tmp_path, text.encode(), "a.txt"), **options)
    assert names == ()
    assert np.array_equal(np.argwhere(mask).min(axis=0), (3, 3))
    assert mask.sum() == 6 * 9


def test_blank_lines_begin_outlines_and_the_file_says_the_class(tmp_path):
    text = "3 3\n12 3\n12 9\n3 9\n \n20 20\n25 20\n25 25\n"
    found = drawing(polygon_text, PICTURE, stored(tmp_path, text.encode(), "a.txt"))
    (layer,) = decoded(found, {"disc": "optic-disc", "cup": "optic-cup"}, label="disc")
    assert layer.terms == {1: "optic-disc"}
    assert (layer.labels > 0).sum() == 54 + 15


@pytest.mark.parametrize("text", ["1 2\n3\n", "1 2 3\n", "x y\n1 2\n", "<html>"])
def test_text_that_is_no_outline(tmp_path, text):
    with refused(Reason.CORRUPT):
        draw(polygon_text, PICTURE, stored(tmp_path, text.encode(), "a.txt"))


# LIDC

SHAPE = (30, 24, 8)


def ct(folder: Path, **geometry: object) -> Reference:
    folder.mkdir(exist_ok=True)
    return reference_of(*written(folder, series(np.zeros(SHAPE, np.int16), **geometry)))


def border(mask: np.ndarray) -> np.ndarray:
    """(N, 2) of x, y around a region, one pixel outside of it, as LIDC's readers drew."""
    return border_of(ndimage.binary_dilation(mask))


def border_of(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a region of one piece, in order."""
    (points,), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return points[:, 0]


def roi(points: np.ndarray, uid: str, z: float, inclusion: str = "TRUE") -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return (
        f"<roi><imageZposition>{z}</imageZposition><imageSOP_UID>{uid}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def reading(*sessions: list[list[str]]) -> bytes:
    body = "".join(
        "<readingSession><servicingRadiologistID>anonymous</servicingRadiologistID>"
        + "".join(
            f"<unblindedReadNodule><noduleID>N</noduleID>{''.join(nodule)}</unblindedReadNodule>"
            for nodule in nodules
        )
        + "<nonNodule><nonNoduleID>x</nonNoduleID><locus><xCoord>3</xCoord><yCoord>3</yCoord></locus></nonNodule>"
        + "</readingSession>"
        for nodules in sessions
    )
    return f'<?xml version="1.0"?><LidcReadMessage uid="1" xmlns="http://www.nih.gov">{body}</LidcReadMessage>'.encode()


def disc(x: int, y: int, radius: float) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def on(reference: Reference, k: int) -> tuple[str, float]:
    return reference.planes[k][0], float(reference.affine[2, 3] + k * reference.affine[2, 2])


def test_an_outer_border_is_not_part_of_the_nodule(tmp_path):
    reference = ct(tmp_path / "ct")
    nodule, cavity = disc(12, 11, 6), disc(12, 11, 2)
    hole = border_of(ndimage.binary_dilation(cavity))
    rois = [
        roi(border(nodule), *on(reference, 2)),
        roi(hole, *on(reference, 3), "FALSE"),
        roi(border(nodule), *on(reference, 3)),
        roi(np.array([[3, 3]]), *on(reference, 4)),
    ]
    path = stored(tmp_path, reading([rois]))
    ((names, mask),) = draw(lidc_xml, reference, path, session=1)
    assert names == ("nodule",)
    expected = np.zeros(SHAPE, bool)
    expected[:, :, 2] = expected[:, :, 3] = nodule.T
    expected[:, :, 3] &= ~ndimage.binary_dilation(cavity).T
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("agreement", [1, 2, 3, 4])
def test_agreement_of_readers(tmp_path, agreement):
    reference = ct(tmp_path / "ct")
    masks = [disc(10 + n, 10 + n // 2, 4 + n % 2) for n in range(4)]
    sessions = [[[roi(border(mask), *on(reference, k)) for k in (1, 2)]] for mask in masks[:3]]
    # the fourth reader drew it twice, which is one vote
    sessions.append([[roi(border(masks[3]), *on(reference, 2))]] * 2)
    path = stored(tmp_path, reading(*sessions))
    ((_, found),) = draw(lidc_xml, reference, path, agreement=agreement)
    votes = np.sum(masks, axis=0)
    assert np.array_equal(found[:, :, 2].T, votes >= agreement)
    assert np.array_equal(found[:, :, 1].T, votes - masks[3] >= agreement)
    assert not found[:, :, [0, 3, 4, 5, 6, 7]].any()


def test_one_reader_gives_nodules_apart(tmp_path):
    reference = ct(tmp_path / "ct")
    nodules = [[roi(border(disc(x, 10, 3)), *on(reference, 2))] for x in (7, 20)]
    path = stored(tmp_path, reading([], nodules))
    layers = decoded(drawing(lidc_xml, reference, path, session=2), {"nodule": "lung-nodule"}, objects=True)
    assert [int(layer.labels.max()) for layer in layers] == [2]
    assert draw(lidc_xml, reference, path, session=1) == []
    with refused(Reason.MISSING_FILE, detail="fewer reading sessions"):
        draw(lidc_xml, reference, path, session=3)


def test_a_wrong_uid_falls_back_to_z(tmp_path):
    reference = ct(tmp_path / "ct")
    points = border(disc(12, 11, 4))
    z = on(reference, 5)[1]
    ((_, mask),) = draw(
        lidc_xml, reference, stored(tmp_path, reading([[roi(points, "1.2.3", z)]])), session=1
    )
    assert np.array_equal(mask[:, :, 5].T, disc(12, 11, 4))
    for wrong in (z + 1.25, 1e9, "nan"):
        with refused(Reason.GEOMETRY, detail="on no plane"):
            draw(lidc_xml, reference, stored(tmp_path, reading([[roi(points, "1.2.3", wrong)]])), session=1)


def test_planes_must_be_axial(tmp_path):
    reference = ct(tmp_path / "ct", row=(0, 1, 0), column=(0, 0, -1), step=(2.5, 0, 0))
    with refused(Reason.GEOMETRY, detail="axial"):
        draw(lidc_xml, reference, stored(tmp_path, reading([])), agreement=1)


@pytest.mark.parametrize("options", [{}, {"session": 1, "agreement": 1}, {"agreement": 2, "session": 9}])
def test_whose_outlines_count_must_be_stated(options):
    with pytest.raises(ValueError, match="session"):
        lidc_xml.Options(**options)


@settings(max_examples=60, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_read_or_refused(tmp_path_factory, edits):
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(xml(annotation(*NUCLEI, attribute="Epithelial")))
    for at, value in edits:
        content[at % len(content)] = value
    with suppress(CaseRejected):
        draw(polygon_xml, PICTURE, stored(folder, bytes(content)))
