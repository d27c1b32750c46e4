-- Read back the files as written (views train, valid, test); every count must be 0.
SELECT 'a training or validation click is not before the test period' AS violation, count(*) AS rows
FROM (SELECT last_click FROM train UNION ALL SELECT last_click FROM valid)
WHERE getvariable('timed') AND (last_click IS NULL OR last_click >= getvariable('test_from'))
UNION ALL
SELECT 'a training click is not before the validation period', count(*) FROM train
WHERE getvariable('timed') AND last_click >= getvariable('valid_from')
UNION ALL
SELECT 'a test click is before the test period', count(*) FROM test
WHERE getvariable('timed') AND (first_click IS NULL OR first_click < getvariable('test_from'))
UNION ALL
SELECT 'the clicks of the parts do not add up to the accepted clicks',
       CASE WHEN (SELECT coalesce(sum(clicks), 0) FROM (SELECT clicks FROM train UNION ALL SELECT clicks FROM valid
                                                        UNION ALL SELECT clicks FROM test))
                 + getvariable('dropped_clicks') = getvariable('positives') THEN 0 ELSE 1 END
UNION ALL
SELECT 'a pair is in train and also in valid or test although repeats are dropped or parts are drawn by pair', count(*)
FROM (SELECT query, item_index FROM valid UNION ALL SELECT query, item_index FROM test)
SEMI JOIN train USING (query, item_index)
WHERE NOT getvariable('keep_repeats') OR getvariable('drawn')
UNION ALL
SELECT 'seen_in_train is wrong', count(*)
FROM (SELECT * FROM valid UNION ALL SELECT * FROM test) AS later
LEFT JOIN (SELECT query, item_index FROM train) AS seen
     ON later.query = seen.query AND later.item_index = seen.item_index
WHERE later.seen_in_train <> (seen.query IS NOT NULL)
UNION ALL
SELECT 'a pair that is judged irrelevant is in a part', count(*)
FROM (SELECT query, item_index FROM train UNION ALL SELECT query, item_index FROM valid
      UNION ALL SELECT query, item_index FROM test)
SEMI JOIN (SELECT query, item_index FROM judged WHERE clicks = 0
           EXCEPT SELECT query, item_index FROM judged WHERE clicks > 0) USING (query, item_index)
