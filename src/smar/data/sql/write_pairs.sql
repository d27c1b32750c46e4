-- The pairs of one part as they are written; weight has mean 1 over the training pairs.
SELECT pair.query, pair.item_index, pair.clicks, pair.orders,
       CAST(approximate(pair.total_weight) / getvariable('mean_weight') AS FLOAT) AS weight,
       pair.first_click, pair.last_click,
       pair.part > 0 AND seen.query IS NOT NULL AS seen_in_train
FROM pair LEFT JOIN (SELECT query, item_index FROM pair WHERE part = 0) AS seen
     ON pair.part > 0 AND pair.query = seen.query AND pair.item_index = seen.item_index
WHERE pair.part = getvariable('part')
  AND (getvariable('keep_repeats') OR pair.part = 0 OR seen.query IS NULL)
ORDER BY pair.query, pair.item_index
