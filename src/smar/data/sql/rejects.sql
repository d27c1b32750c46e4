-- Every rejected row of every table. The log's may be many; they go from scan to file.
SELECT "table", CAST(row AS BIGINT) AS row, coalesce(key, '') AS key, reason FROM reject
UNION ALL
SELECT 'clicks', __row,
       coalesce(left(CASE WHEN reason IN ('no item_id', 'query too long') THEN query ELSE item_id END, 200), ''),
       reason
FROM log WHERE reason IS NOT NULL AND getvariable('log_rejects')
ORDER BY "table", row, key
