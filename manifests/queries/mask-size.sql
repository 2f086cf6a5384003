-- title: Masks by share of the image's area
-- order: 40
-- chart: histogram
-- x: percent_from
-- y: masks
-- colour: modality
WITH bins AS (
    SELECT modality, floor(log10(area_fraction) * 2) AS bin, count(*) AS masks
    FROM manifest
    WHERE area_fraction > 0
    GROUP BY ALL
)
SELECT modality, 100 * 10 ** (bin / 2) AS percent_from, 100 * 10 ** ((bin + 1) / 2) AS percent_to, masks
FROM bins
ORDER BY bin, modality
