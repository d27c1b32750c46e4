-- One row per picture of an item, numbered: first those in the item's own row, then those of the images table.
-- Views own_picture and other_picture: __row, item_id, pictures (how many the row holds).
INSERT INTO reject
SELECT 'images', other.__row, left(coalesce(other.item_id, ''), 200),
       CASE WHEN is_blank(other.item_id) THEN 'no item_id'
            WHEN item.item_index IS NULL THEN 'unknown item'
            ELSE 'no image' END
FROM other_picture AS other LEFT JOIN item ON item.item_id = other.item_id
WHERE item.item_index IS NULL OR other.pictures = 0;

CREATE TEMP TABLE picture AS
WITH row_pictures AS (
    SELECT item_index, 0 AS source, own.__row AS row, pictures FROM own_picture AS own JOIN item USING (__row)
    UNION ALL
    SELECT item_index, 1, other.__row, pictures FROM other_picture AS other JOIN item USING (item_id)
),
listed AS (
    SELECT item_index, source, row, unnest(range(pictures)) AS sub FROM row_pictures
)
SELECT item_index, source, row, sub,
       row_number() OVER (PARTITION BY item_index ORDER BY source, row, sub) - 1 AS position
FROM listed;
