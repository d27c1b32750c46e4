-- Every row of the log with the reason to reject it (null: accepted) and its item.
CREATE TEMP VIEW log AS
SELECT source.*, item.item_index,
       CASE WHEN is_blank(query) THEN 'no query'
            WHEN length(query) > getvariable('max_query_characters') THEN 'query too long'
            WHEN source.item_id IS NULL THEN 'no item_id'
            WHEN item.item_index IS NULL THEN 'unknown item'
            WHEN getvariable('timed') AND timestamp IS NULL THEN 'no readable timestamp'
            WHEN getvariable('graded') AND (relevance IS NULL OR relevance <> floor(relevance) OR abs(relevance) > 10)
            THEN 'relevance is not a whole number up to 10'
            WHEN getvariable('parted') AND part IS NULL THEN 'split is none of train, valid, test'
            WHEN place <> floor(place) OR (place IS NULL AND placed) THEN 'position is not a whole number'
            WHEN clicked IS NULL THEN 'clicked is neither true nor false'
            WHEN weight IS NULL OR NOT weight BETWEEN 1e-6 AND 1e12 THEN 'weight is not a number from 1e-6 to 1e12'
       END AS reason
FROM log_source AS source LEFT JOIN item ON source.item_id = item.item_id;

-- An order without a recorded click counts as a click. Parts: 0 train, 1 valid, 2 test.
CREATE TEMP VIEW event AS
SELECT query, item_index, item_id, timestamp, TRY_CAST(place AS BIGINT) AS position, weight, relevance,
       clicked OR coalesce(ordered, false) AS positive,
       coalesce(ordered, false) AS ordered,
       CAST(CASE WHEN getvariable('parted') THEN part
                 WHEN NOT getvariable('timed') THEN 0
                 WHEN timestamp >= getvariable('test_from') THEN 2
                 WHEN timestamp >= getvariable('valid_from') THEN 1
                 ELSE 0 END AS UTINYINT) AS part
FROM log WHERE reason IS NULL;
