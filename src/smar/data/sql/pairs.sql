-- One row per (part, query, item) of a log or a table of pairs. A click at an unknown position weighs 1.
-- A table with neither time nor parts is split by a hash of the pair (drawn); parts without validation pairs get those
-- of some training queries (valid_border.sql).
CREATE TEMP TABLE judged AS
WITH grouped AS (
    SELECT part, clean_query(query) AS query, item_index,
           CAST(count_if(positive) AS INTEGER) AS clicks,
           CAST(count_if(ordered) AS INTEGER) AS orders,
           CAST(greatest(max(relevance), 0) AS INTEGER) AS relevance,
           sum(exact(weight * coalesce(position_weight, 1)
                     * (1 + CASE WHEN ordered THEN getvariable('order_weight') ELSE 0 END))) FILTER (positive)
               AS total_weight,
           min(timestamp) FILTER (positive) AS first_click,
           max(timestamp) FILTER (positive) AS last_click
    FROM event LEFT JOIN position_weight USING (position)
    WHERE positive OR getvariable('graded')
    GROUP BY ALL
)
SELECT CAST(CASE WHEN getvariable('drawn') THEN hash_part(query, item.item_id)
                 WHEN getvariable('valid_border') < 0 OR part > 0 THEN part
                 WHEN pair_hash(query, '') <= getvariable('valid_border') THEN 1
                 ELSE 0 END AS UTINYINT) AS part,
       grouped.* EXCLUDE (part)
FROM grouped JOIN item USING (item_index);

CREATE TEMP VIEW pair AS FROM judged WHERE clicks > 0;
