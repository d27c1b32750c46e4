-- Judgements of the test period (view test): 2 ordered, 1 clicked.
SELECT test.query, item.item_id, CASE WHEN test.orders > 0 THEN 2 ELSE 1 END AS relevance
FROM test JOIN item USING (item_index)
ORDER BY test.query, test.item_index
