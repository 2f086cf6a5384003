"""Label decoders: what the values of label files mean.

A decoder is a module with ``class Options(Strict)``, ``check(labels: Mapping[str, str]) -> None`` (raises
ValueError when a key of the source's [labels] is not of its form) and
``decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]``. It walks
``files`` once and keeps no volume that no layer needs; it raises ``CaseRejected`` with reason BAD_LABEL for values
that the source does not declare, fractions and NaN. One that takes drawings (``LabelDrawings``) says so with
``DRAWN = True``, one whose values number objects with ``OBJECTS = True``, one that needs the source's
``label.classes`` with ``NEEDS_CLASSES = True``. Adding one is one file and one line here.
"""

DECODERS = {
    "bits": "medcurate.decoders.bits",
    "colour-instance": "medcurate.decoders.colour_instance",
    "colour-map": "medcurate.decoders.colour_map",
    "index": "medcurate.decoders.index",
    "instance": "medcurate.decoders.instance",
    "instance-channels": "medcurate.decoders.instance_channels",
    "instance-class": "medcurate.decoders.instance_class",
    "instance-table": "medcurate.decoders.instance_table",
    "mask-per-class": "medcurate.decoders.mask_per_class",
    "structures": "medcurate.decoders.structures",
    "threshold": "medcurate.decoders.threshold",
    "value-map": "medcurate.decoders.value_map",
}
