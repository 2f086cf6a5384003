"""``summary.parquet``: what statistics count of a manifest, counted once when the dataset is made.

The SQL here is DuckDB's and the only one that makes such rows: pack writes them, verify counts them again, and
stats counts the same where a dataset has no such file, so that no answer depends on the file.
"""

from __future__ import annotations

# The half-decade of a share above 0. Of 0.01, which is the edge of a bin, log10 may be off by a last bit from one C
# library to the next, and the bytes would differ; the constant decides, and next to no other share is as near to an
# edge. What is no share at all (infinite, not a number) has no bin.
AREA_BIN = "CASE WHEN area_fraction > 0 THEN TRY_CAST(floor(2 * log10(area_fraction) + 1e-12) AS TINYINT) END"

_KEYS = ("source", "split", "modality", "label")
_COUNTS = """counts AS (
    SELECT {keys}, count(*) AS masks, count_if(annotation = 0)::BIGINT AS first_masks,
        count_if(organ_first)::BIGINT AS organ_images
    FROM {manifest} GROUP BY ALL
)"""
# A label decides its organ and whether it is a lesion, a source its licence. The first rows know most of them, so that
# these columns are seldom read whole: not at all where none is missing there. Should rows disagree, which verify
# tells, the least of what they say is taken.
_FIRST_ROWS = 100_000
_DECIDED_BY = {"label": ("organ", "lesion"), "source": ("licence", "commercial")}
_FACTS = """{key}_known AS (
    SELECT {key}, min({facts}) AS facts
    FROM (SELECT {key}, {columns} FROM {manifest} LIMIT {first_rows}) GROUP BY {key}
), {key}_others AS (
    SELECT {key}, min({facts}) AS facts FROM {manifest}
    WHERE {key} IN (SELECT {key} FROM counts EXCEPT SELECT {key} FROM {key}_known) GROUP BY {key}
), {key}_facts AS (FROM {key}_known UNION ALL FROM {key}_others)"""


def summary_query(manifest: str = "manifest", *, area_bins: bool = True) -> str:
    """A SELECT of the rows of ``columns.SUMMARY``, sorted, from ``manifest``: a table's name or a subquery.

    Without ``area_bins`` it has no such column and counts all sizes together, in half the time.
    """
    bins = ("area_bin",) if area_bins else ()
    keys = ", ".join([*_KEYS, *(f"{AREA_BIN} AS {name}" for name in bins)])
    facts = [_facts(manifest, key, columns) for key, columns in _DECIDED_BY.items()]
    chosen = [
        f"{key}_facts.facts.{name} AS {name}" for key, columns in _DECIDED_BY.items() for name in columns
    ]
    joins = [
        f"LEFT JOIN {key}_facts ON counts.{key} IS NOT DISTINCT FROM {key}_facts.{key}" for key in _DECIDED_BY
    ]
    return (
        f"WITH {', '.join([_COUNTS.format(keys=keys, manifest=manifest), *facts])} "
        f"SELECT {', '.join(f'counts.{key}' for key in _KEYS)}, {', '.join([*chosen, *bins])}, "
        f"masks, first_masks, organ_images FROM counts {' '.join(joins)} "
        f"ORDER BY {', '.join(f'counts.{key} NULLS FIRST' for key in (*_KEYS, *bins))}"
    )


def _facts(manifest: str, key: str, columns: tuple[str, ...]) -> str:
    return _FACTS.format(
        key=key,
        facts="{" + ", ".join(f"'{name}': {name}" for name in columns) + "}",
        columns=", ".join(columns),
        manifest=manifest,
        first_rows=_FIRST_ROWS,
    )
