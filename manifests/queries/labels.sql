-- title: Masks by label
-- order: 50
-- chart: stacked-bar
-- x: label
-- y: masks
-- colour: kind
SELECT
    label,
    organ,
    CASE WHEN lesion THEN 'lesion' ELSE 'structure' END AS kind,
    sum(masks) AS masks,
    count(DISTINCT source) AS sources
FROM summary
GROUP BY ALL
ORDER BY masks DESC, label, organ, kind
