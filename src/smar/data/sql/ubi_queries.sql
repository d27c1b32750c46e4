-- Queries of User Behavior Insights as attributes of queries.
SELECT user_query AS query, count(*) AS searches
FROM queries
WHERE user_query IS NOT NULL
GROUP BY ALL
