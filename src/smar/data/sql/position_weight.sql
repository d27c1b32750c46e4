-- Position bias: a click at a rarely clicked position says more. Weight = click rate of the first position that was
-- ever clicked / click rate of this position, at most max_position_weight; from everything shown before the test period.
CREATE TEMP TABLE position_weight AS
WITH rate AS (
    SELECT position, sum(clicks) / sum(shown) AS click_rate
    FROM position_count WHERE part < 2 AND position IS NOT NULL
    GROUP BY position HAVING sum(clicks) > 0
)
SELECT position,
       least((SELECT arg_min(click_rate, position) FROM rate) / click_rate,
             getvariable('max_position_weight')) AS position_weight
FROM rate;
