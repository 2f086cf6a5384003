-- title: Images by source and split
-- order: 60
-- chart: stacked-bar
-- x: source
-- y: images
-- colour: split
SELECT source, split, sum(first_masks) AS images, sum(masks) AS masks
FROM summary
GROUP BY source, split
ORDER BY sum(images) OVER (PARTITION BY source) DESC, source, split
