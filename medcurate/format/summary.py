"""``summary.parquet``: what statistics count of a manifest, counted once when the dataset is made.

The SQL here is DuckDB's and the only one that makes such rows: pack writes them, verify counts them again, and
stats counts the same where a dataset has no such file, so that no answer depends on the file.
"""

from __future__ import annotations

# The half-decade of a share above 0. Of 0.01, which is the edge of a bin, log10 may be off by a last bit from one C
# library to the next, and the bytes would differ; the constant decides, and next to no other share is as near to an
# edge. What is no share at all (infinite, not a number) has no bin.
AREA_BIN = "CASE WHEN area_fraction > 0 THEN TRY_CAST(floor(2 * log10(area_fraction) + 1e-12) AS TINYINT) END"

_KEYS = ("source", "split", "modality", "label", "organ", "lesion")
# A source has one licence. The first rows know most sources, so that these columns are seldom read whole: not at all
# where no source is missing there. Should rows disagree, which verify tells, the least of what they say is taken.
_FIRST_ROWS = 100_000
_QUERY = """
WITH counts AS (
    SELECT {keys}, count(*) AS masks, count_if(annotation = 0)::BIGINT AS first_masks,
        count_if(organ_first)::BIGINT AS organ_images
    FROM {manifest} GROUP BY ALL
), known AS (
    SELECT source, min({terms}) AS terms
    FROM (SELECT source, licence, commercial FROM {manifest} LIMIT {first_rows}) GROUP BY source
), others AS (
    SELECT source, min({terms}) AS terms FROM {manifest}
    WHERE source IN (SELECT source FROM counts EXCEPT SELECT source FROM known) GROUP BY source
)
SELECT source, split, modality, label, organ, lesion, terms.licence AS licence, terms.commercial AS commercial,
    {bin}masks, first_masks, organ_images
FROM counts LEFT JOIN (FROM known UNION ALL FROM others) USING (source)
ORDER BY {order}
"""
_TERMS = "{'licence': licence, 'commercial': commercial}"


def summary_query(manifest: str = "manifest", *, area_bins: bool = True) -> str:
    """A SELECT of the rows of ``columns.SUMMARY``, sorted, from ``manifest``: a table's name or a subquery.

    Without ``area_bins`` it has no such column and counts all sizes together, in half the time.
    """
    return _QUERY.format(
        manifest=manifest,
        keys=", ".join([*_KEYS, *([f"{AREA_BIN} AS area_bin"] if area_bins else [])]),
        terms=_TERMS,
        first_rows=_FIRST_ROWS,
        bin="area_bin, " if area_bins else "",
        order=", ".join(f"{key} NULLS FIRST" for key in [*_KEYS, *(["area_bin"] if area_bins else [])]),
    )
