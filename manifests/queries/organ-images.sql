-- title: Images by organ and modality
-- order: 30
-- chart: stacked-bar
-- x: organ
-- y: images
-- colour: modality
SELECT modality, organ, sum(organ_images)::BIGINT AS images, sum(masks)::BIGINT AS masks
FROM summary
GROUP BY modality, organ
ORDER BY images DESC, modality, organ
