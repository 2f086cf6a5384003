-- title: Patients by source and split
-- order: 70
-- chart: stacked-bar
-- x: source
-- y: patients
-- colour: split
-- default-up-to: 1000000
SELECT source, split, count(DISTINCT "group") AS patients, count(DISTINCT "case") AS cases
FROM manifest
WHERE annotation = 0
GROUP BY source, split
ORDER BY sum(patients) OVER (PARTITION BY source) DESC, source, split
