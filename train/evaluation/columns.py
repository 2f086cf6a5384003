"""Columns of the tables that an evaluation writes: the schemas and the documentation are made from these."""

from __future__ import annotations

from medcurate.format.columns import MANIFEST, Column
from medcurate.train.evaluation.samples import FACTS

_OF_MANIFEST = {column.name: column for column in MANIFEST}

TRUTH = "truth"
"""What stands in the place of a model's name for the dataset's own masks."""

SCORES = (
    Column("model", "dictionary", "name of the checkpoint"),
    Column("prompt", "dictionary", "box, 1 point, 3 points, …"),
    *(_OF_MANIFEST[name] for name in FACTS),
    Column("slice_spacing_mm", "float64", "distance of neighbouring planes, mm; null where unknown"),
    Column("predicted_px", "uint32", "pixels of the predicted mask, at the image's original size"),
    Column("predicted_iou", "float32", "the model's own estimate; null for a box that is filled"),
    Column("dice", "float64", "0..1, at the image's original size"),
    Column("iou", "float64", "0..1, at the image's original size"),
    Column("nsd", "float64", "normalised surface distance, 0..1; null where the spacing is unknown"),
    Column(
        "nsd_px", "float64", "the same with a pixel for a millimetre, where the spacing is unknown; else null"
    ),
    Column("leaked", "bool", "whether the model was trained on the patient; null where that is not known"),
)

VOLUME_FACTS = ("source", "case", "group", "split", "modality", "channel", "organ", "label", "axis")
"""Columns of the manifest that are equal in all slices of a label in a volume."""

VOLUMES = (
    Column("model", "dictionary", "name of the checkpoint"),
    Column("prompt", "dictionary", "what every mask of the volume was prompted with"),
    *(_OF_MANIFEST[name] for name in VOLUME_FACTS),
    Column("slices", "uint32", "slices with a mask of the label"),
    Column("masks", "uint32", "masks that were joined"),
    Column("dice", "float64", "0..1, of all voxels of the label"),
    Column("iou", "float64", "0..1, of all voxels of the label"),
    Column("nsd", "float64", "normalised surface distance in 3D; null where a spacing is unknown"),
    Column("leaked", "bool", "whether the model was trained on the patient; null where that is not known"),
)

PREDICTIONS = (
    Column("model", "dictionary", f'name of the checkpoint; "{TRUTH}" for the dataset\'s own mask'),
    Column("prompt", "dictionary", "as in scores; empty for the truth"),
    Column("key", "string", "sample key"),
    Column("annotation", "uint16", "index of the mask in the sample's JSON"),
    Column("counts", "string", "COCO compressed run lengths, at the image's original size"),
)
