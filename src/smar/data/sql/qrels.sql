-- Judgements of the test part (view test): what its table says, else 2 ordered, 1 clicked. Judged irrelevant is 0.
SELECT query, item.item_id, relevance
FROM (
    SELECT test.query, test.item_index,
           CASE WHEN getvariable('graded') THEN judged.relevance WHEN test.orders > 0 THEN 2 ELSE 1 END AS relevance
    FROM test LEFT JOIN judged
         ON getvariable('graded') AND judged.part = 2
            AND test.query = judged.query AND test.item_index = judged.item_index
    UNION ALL
    SELECT query, item_index, relevance FROM judged WHERE part = 2 AND clicks = 0
) JOIN item USING (item_index)
ORDER BY query, item_index
