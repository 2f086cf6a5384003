-- title: Masks by licence
-- order: 80
-- chart: stacked-bar
-- x: licence
-- y: masks
-- colour: commercial
SELECT
    licence,
    CASE commercial WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'unknown' END AS commercial,
    sum(masks) AS masks,
    sum(first_masks) AS images,
    count(DISTINCT source) AS sources
FROM summary
GROUP BY licence, summary.commercial
ORDER BY masks DESC, licence, commercial
