"""Readers: files of one image or label to a ``Volume``.

A reader is a module with ``class Options(Strict)`` and
``read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume``; it raises ``CaseRejected``
and opens nothing but through ``files``. Adding one is one file and one line here.
"""

READERS = {
    "dicom": "medcurate.readers.dicom",
    "metaimage": "medcurate.readers.metaimage",
    "nifti": "medcurate.readers.nifti",
    "nrrd": "medcurate.readers.nrrd",
    "raster": "medcurate.readers.raster",
}
