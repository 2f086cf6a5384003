-- title: Masks by organ and modality
-- order: 20
-- chart: stacked-bar
-- x: organ
-- y: masks
-- colour: modality
SELECT modality, organ, sum(masks) AS masks, count(DISTINCT label) AS labels, count(DISTINCT source) AS sources
FROM summary
GROUP BY modality, organ
ORDER BY masks DESC, modality, organ
