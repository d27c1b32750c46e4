-- First pages of searches with words, and what came of each; a search that only its events tell of has no count of hits.
-- Where sessions were recorded, what was searched next within five minutes is known, and what was typed on within three
-- seconds is no search of its own. Abandoned is one of which something was shown and nothing clicked, after which no
-- further page was asked and nothing else searched for.
CREATE TEMP TABLE search AS
WITH happened AS (
    SELECT query_id, any_value(query) AS query, any_value(session_id) AS session_id, min(timestamp) AS timestamp,
           count(DISTINCT object_id) FILTER (action_name = 'impression') AS shown,
           count(DISTINCT object_id) FILTER (action_name <> 'impression') AS clicks,
           count(DISTINCT object_id) FILTER (action_name = 'order') AS orders
    FROM event GROUP BY query_id
), answered AS (
    SELECT query_id, any_value(COLUMNS(* EXCLUDE query_id)) FROM searched GROUP BY query_id
), page AS (
    SELECT query_id, coalesce(answered.query, happened.query) AS query,
           coalesce(answered.session_id, happened.session_id) AS session_id,
           coalesce(answered.timestamp, happened.timestamp) AS timestamp, coalesce("offset", 0) AS "offset",
           hits, routed, coalesce(shown, 0) AS shown, coalesce(clicks, 0) AS clicks, coalesce(orders, 0) AS orders
    FROM answered FULL JOIN happened USING (query_id)
    WHERE coalesce(answered.query, happened.query) <> ''
), following AS (
    SELECT *, lead(query) OVER later AS next_query, lead(clicks) OVER later AS next_clicks,
           lead(timestamp) OVER later - timestamp AS pause,
           EXISTS (FROM page AS further WHERE further.session_id = page.session_id AND further.query = page.query
                   AND further."offset" > 0) AS went_on
    FROM page WHERE "offset" = 0
    WINDOW later AS (PARTITION BY coalesce(session_id, query_id) ORDER BY timestamp, query_id)
)
SELECT *, coalesce(clicks = 0 AND next_query <> query AND pause < INTERVAL 5 MINUTE, false) AS reformulated,
       shown > 0 AND clicks = 0 AND NOT went_on AND NOT reformulated AS abandoned
FROM following
WHERE NOT coalesce(clicks = 0 AND pause < INTERVAL 3 SECOND AND starts_with(next_query, query), false)
