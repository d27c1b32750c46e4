-- The user's table of query attributes, by normal form; the first row of a query is kept.
CREATE TEMP TABLE query_row AS
WITH checked AS (
    SELECT __row, clean_query(query) AS query, CASE WHEN is_blank(query) THEN 'no query' ELSE misfit END AS fault
    FROM query_key
)
SELECT __row, query,
       CASE WHEN fault IS NOT NULL THEN fault
            WHEN row_number() OVER (PARTITION BY query, fault IS NULL ORDER BY __row) > 1
            THEN 'duplicate query (the first row is kept)' END AS reason
FROM checked;

INSERT INTO reject
SELECT 'queries', __row, left(query, 200), reason FROM query_row WHERE reason IS NOT NULL;
