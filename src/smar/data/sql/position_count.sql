-- One pass over the accepted rows: what was shown and clicked, by part and position.
CREATE TEMP TABLE position_count AS
SELECT part, position, count(*) AS shown, count_if(positive) AS clicks,
       min(timestamp) FILTER (positive) AS first_click, max(timestamp) FILTER (positive) AS last_click
FROM event GROUP BY part, position;
