"""Pairings: a source's folder to cases' files.

A pairing is a module with ``class Options(Strict)`` and
``find(root: Path, options: Options, names: Names) -> Iterator[Found]`` (see ``found.py``), in sorted
order of names, independent of the file system's, and ``check(options: Options, names: Names) -> None``,
which raises ValueError where the options do not fit the source's channels and labels without looking at
any file. One whose cases read parts of files also has ``sample_entries(options: Options)``: a pair of tuples,
what entries of images and of labels look like, which ``checks`` hands to the readers. Adding one is one file
and one line here.
"""

PAIRINGS = {
    "array-pack": "medcurate.pairings.array_pack",
    "bids-derivatives": "medcurate.pairings.bids",
    "case-folder": "medcurate.pairings.case_folder",
    "dicom-tree": "medcurate.pairings.dicom_tree",
    "flat-suffix": "medcurate.pairings.flat_suffix",
    "paired-folders": "medcurate.pairings.paired_folders",
    "pattern": "medcurate.pairings.pattern",
    "sa-med2d-demo": "medcurate.pairings.sa_med2d_demo",
    "sa-med2d-release": "medcurate.pairings.sa_med2d",
    "same-file": "medcurate.pairings.same_file",
    "table": "medcurate.pairings.table",
}
