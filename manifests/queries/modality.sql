-- title: Masks by modality
-- order: 10
-- chart: bar
-- x: modality
-- y: masks
-- colour: modality
SELECT modality, sum(masks) AS masks, sum(first_masks) AS images, count(DISTINCT source) AS sources
FROM summary
GROUP BY modality
ORDER BY masks DESC, modality
