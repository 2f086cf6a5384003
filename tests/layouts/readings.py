"""Labels that refer to a DICOM series by its UID, backwards: from strips to files."""

from __future__ import annotations

from layouts.paint import Strip
from layouts.pieces import File

FIRST_Z_MM, STEP_MM = 30.0, 2.5  # of the planes of ``dicom_kit.series``


def lidc_xml(file: File) -> None:
    """As many readers as must agree draw every strip, and one more a pixel too large on each side.

    Outlines are the pixels just outside. Planes are named by UIDs that no file has, so that z decides.
    """
    piece = file.pieces[0]
    uid = piece.entry.rpartition("/")[2]
    agreement = piece.options.get("agreement", 1)
    readers = [_reader(piece.strips, 0)] * agreement + [_reader(piece.strips, 1)] * (agreement > 1)
    head = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    text = f'<LidcReadMessage xmlns="http://www.nih.gov">{head}{"".join(readers)}</LidcReadMessage>'
    file.path.write_text(text)


def _reader(strips: tuple[Strip, ...], margin: int) -> str:
    nodules = "".join(
        f"<unblindedReadNodule>{''.join(_roi(strip, plane, margin) for plane in strip.planes)}</unblindedReadNodule>"
        for strip in strips
    )
    return f"<readingSession>{nodules}</readingSession>"


def _roi(strip: Strip, plane: int, margin: int) -> str:
    left, right = 1 - margin, 2 + strip.width + margin
    top, bottom = strip.top - 1 - margin, strip.top + 2 + margin
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in corners)
    z = FIRST_Z_MM + STEP_MM * plane
    return (
        f"<roi><imageZposition>{z}</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>"
        f"<inclusion>TRUE</inclusion>{edges}</roi>"
    )
