-- Where an item was shown says more than where it was clicked, which not every page tells.
SELECT query, object_id AS item_id, min(timestamp) AS timestamp,
       bool_or(action_name <> 'impression') AS clicked,
       bool_or(action_name = 'order') AS ordered,
       coalesce(min(position) FILTER (action_name = 'impression'), min(position)) AS position
FROM event
WHERE query <> '' AND object_id IS NOT NULL
GROUP BY query_id, query, object_id
ORDER BY timestamp, query_id, object_id
