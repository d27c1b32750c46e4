-- The user's table of query attributes, by normal form; the first row of a query is kept.
CREATE TEMP TABLE query_row AS
WITH checked AS (
    SELECT __row, clean_query(query) AS query, is_blank(query) AS blank FROM query_key
)
SELECT __row, query,
       CASE WHEN blank THEN 'no query'
            WHEN row_number() OVER (PARTITION BY query ORDER BY __row) > 1
            THEN 'duplicate query (the first row is kept)' END AS reason
FROM checked;

INSERT INTO reject
SELECT 'queries', __row, left(query, 200), reason FROM query_row WHERE reason IS NOT NULL;
