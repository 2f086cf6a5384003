"""The dataset contract: the only part that the writers of datasets and the trainer share.

    out/dataset.json        what it is, from what, under which licences; size and SHA-256 of every file
    out/manifest.parquet    one row a mask (``columns.MANIFEST``)
    out/rejects.parquet     one row per refused case, slice or mask (``columns.REJECTS``)
    out/summary.parquet     what statistics count of the manifest (``columns.SUMMARY``); older datasets have none
    out/shards/<split>-000000.tar   plain USTAR WebDataset; one sample is <key>.png and <key>.json

``offset`` and ``size`` of a manifest row delimit the sample's two tar members (headers and padding
included) in its shard, and ``digest`` is the xxh3-64 of those bytes.
"""

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
REJECTS_FILE = "rejects.parquet"
SUMMARY_FILE = "summary.parquet"
CLAIM_FILE = "build.json"  # stands in an unfinished output; says what is being built there
SCORE_FILES = ("scores.parquet", "volumes.parquet", "predictions.parquet", "prompts.parquet")
"""What an evaluation writes into a folder of its own; the first is always there."""
SHARD_FOLDER = "shards"
SPLITS = ("train", "val", "test")
