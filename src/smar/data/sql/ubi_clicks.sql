-- Events of User Behavior Insights as a log: what happened to an object of a query is one row.
SELECT user_query AS query, object_id AS item_id, min(timestamp) AS timestamp,
       bool_or(action_name NOT IN ('impression', 'view')) AS clicked,
       bool_or(action_name IN ('purchase', 'order')) AS ordered,
       coalesce(min(ordinal) FILTER (action_name IN ('impression', 'view')), min(ordinal)) AS position
FROM (
    SELECT CAST(query_id AS VARCHAR) AS query_id, action_name, CAST(timestamp AS VARCHAR) AS timestamp,
           CAST(event_attributes AS JSON) ->> '$.object.object_id' AS object_id,
           TRY_CAST(CAST(event_attributes AS JSON) ->> '$.position.ordinal' AS INTEGER) AS ordinal
    FROM clicks
    WHERE action_name IN ('impression', 'view', 'click', 'click_through', 'watch', 'cart', 'add_to_cart',
                          'order', 'purchase')
)
JOIN (SELECT CAST(query_id AS VARCHAR) AS query_id, any_value(user_query) AS user_query FROM queries GROUP BY 1)
    USING (query_id)
WHERE object_id IS NOT NULL AND user_query IS NOT NULL
GROUP BY query_id, user_query, object_id
