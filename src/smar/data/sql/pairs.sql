-- One row per (part, query, item) with clicks. A click at an unknown position weighs 1.
-- A table without time has no part yet: it is split by a hash of the pair.
CREATE TEMP TABLE pair AS
WITH grouped AS (
    SELECT part, clean_query(query) AS query, item_index,
           CAST(count(*) AS INTEGER) AS clicks,
           CAST(count_if(ordered) AS INTEGER) AS orders,
           sum(exact(weight * coalesce(position_weight, 1)
                     * (1 + CASE WHEN ordered THEN getvariable('order_weight') ELSE 0 END))) AS total_weight,
           min(timestamp) AS first_click,
           max(timestamp) AS last_click
    FROM event LEFT JOIN position_weight USING (position)
    WHERE positive
    GROUP BY ALL
)
SELECT CASE WHEN getvariable('timed') THEN part ELSE hash_part(query, item.item_id) END AS part,
       grouped.* EXCLUDE (part)
FROM grouped JOIN item USING (item_index);
