"""Pairings: a source's folder to cases' files.

A pairing is a module with ``class Options(Strict)`` and
``find(root: Path, options: Options, names: Names) -> Iterator[Found]`` (see ``found.py``), in sorted
order of names, independent of the file system's, and ``check(options: Options, names: Names) -> None``,
which raises ValueError where the options do not fit the source's channels and labels without looking at
any file. Adding one is one file and one line here.
"""

PAIRINGS = {
    "case-folder": "medcurate.pairings.case_folder",
    "flat-suffix": "medcurate.pairings.flat_suffix",
    "paired-folders": "medcurate.pairings.paired_folders",
}
