-- One row a query. A search was seen when something of it was shown.
CREATE TEMP TABLE asked AS
SELECT query, count(*) AS searches,
       count_if(hits = 0) AS empty,
       count_if(shown > 0) AS seen,
       count_if(clicks > 0) AS clicked,
       sum(clicks)::BIGINT AS clicks,
       sum(orders)::BIGINT AS orders,
       count_if(abandoned) AS abandoned,
       count_if(reformulated) AS reformulated,
       count_if(routed) AS routed,
       count_if(timestamp > getvariable('week')) AS this_week,
       count_if(timestamp > getvariable('before') AND timestamp <= getvariable('week')) AS week_before
FROM search GROUP BY query
