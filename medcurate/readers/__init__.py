"""Readers: files of one image or label to a ``Volume``.

A reader is a module with ``class Options(Strict)`` and
``read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume``; it raises ``CaseRejected``
and opens nothing but through ``files``. A reader of files that hold several images also has
``read_entry(files, paths, entry: str, options) -> Volume`` and ``check_entry(entry: str) -> None``, which
raises ValueError for what is no entry of its files. Adding one is one file and one line here.

A reader of labels that are drawn on an image's grid (contours, segments) has, in place of ``read``,
``draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing``. Its
``reference`` comes from the image's reader: by ``reference(files, paths, options) -> Reference`` where it has
that function, which reads headers alone, else from the volume that ``read`` gives.
"""

READERS = {
    "array": "medcurate.readers.array",
    "dicom": "medcurate.readers.dicom",
    "dicom-seg": "medcurate.readers.dicom_seg",
    "lidc-xml": "medcurate.readers.lidc_xml",
    "metaimage": "medcurate.readers.metaimage",
    "nifti": "medcurate.readers.nifti",
    "nrrd": "medcurate.readers.nrrd",
    "polygon-text": "medcurate.readers.polygon_text",
    "polygon-xml": "medcurate.readers.polygon_xml",
    "raster": "medcurate.readers.raster",
    "rtstruct": "medcurate.readers.rtstruct",
}
