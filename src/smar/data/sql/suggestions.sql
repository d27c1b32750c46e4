-- Queries that led to a click and that enough shoppers asked, the most asked first; what fewer asked may name a person.
SELECT clean_query(query) AS query, CAST(count(DISTINCT asker) AS INTEGER) AS asked
FROM log
WHERE reason IS NULL
GROUP BY 1
HAVING count(DISTINCT asker) >= getvariable('suggest_from') AND bool_or(clicked OR coalesce(ordered, false))
   AND length(clean_query(query)) <= getvariable('most_letters')
ORDER BY asked DESC, query
LIMIT getvariable('most_suggestions')
