-- Events with what is known of their search; one that was answered twice under one id counts once.
CREATE TEMP VIEW event AS
SELECT told.* REPLACE (coalesce(told.query, search.query) AS query, coalesce(told.variant, search.variant) AS variant)
FROM told LEFT JOIN (
    SELECT query_id, any_value(query) AS query, any_value(variant) AS variant FROM searched GROUP BY query_id
) AS search USING (query_id)
