-- A training query whose hash is at most this number is one of validation: valid_share of them, and one if there are two.
SET VARIABLE valid_border = (
    SELECT CASE WHEN count(*) > 1 THEN greatest(getvariable('valid_share'), min(number)) ELSE -1 END
    FROM (SELECT DISTINCT pair_hash(clean_query(query), '') AS number FROM event WHERE positive AND part = 0)
);
