-- title: Masks by share of the image's area
-- order: 40
-- chart: histogram
-- x: percent_from
-- y: masks
-- colour: modality
SELECT
    modality,
    100 * 10 ** (area_bin / 2) AS percent_from,
    100 * 10 ** ((area_bin + 1) / 2) AS percent_to,
    masks
FROM sizes
WHERE area_bin IS NOT NULL
ORDER BY area_bin, modality
