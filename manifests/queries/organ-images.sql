-- title: Images by organ and modality
-- order: 30
-- chart: stacked-bar
-- x: organ
-- y: images
-- colour: modality
-- default-up-to: 1000000
SELECT
    modality,
    organ,
    count(DISTINCT digest) AS images,
    count(DISTINCT "group") AS patients,
    count(*) AS masks
FROM manifest
GROUP BY modality, organ
ORDER BY images DESC, modality, organ
