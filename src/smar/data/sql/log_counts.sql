-- One pass over the whole log: rows by fate, and the time range of the accepted clicks.
SELECT reason, count(*) AS rows, count_if(clicked OR ordered) AS clicks,
       min(timestamp) FILTER (clicked OR ordered) AS first, max(timestamp) FILTER (clicked OR ordered) AS last
FROM log GROUP BY reason ORDER BY reason
