-- title: Refused, by reason and stage
-- order: 90
-- chart: stacked-bar
-- x: reason
-- y: refused
-- colour: stage
SELECT reason, stage, count(*) AS refused
FROM rejects
GROUP BY reason, stage
ORDER BY refused DESC, reason, stage
