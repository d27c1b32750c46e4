-- Which rows of the catalogue are items. Of several good rows with one item_id the first is kept.
CREATE TEMP TABLE item_row AS
WITH checked AS (
    SELECT __row, item_id,
           CASE WHEN is_blank(item_id) THEN 'no item_id' WHEN is_blank(title) THEN 'no title' ELSE misfit END AS fault
    FROM item_key
)
SELECT __row, item_id,
       CASE WHEN fault IS NOT NULL THEN fault
            WHEN row_number() OVER (PARTITION BY item_id, fault IS NULL ORDER BY __row) > 1
            THEN 'duplicate item_id (the first row is kept)' END AS reason
FROM checked;

-- item_index: the position of the item in every file of the dataset.
CREATE TEMP TABLE item AS
SELECT CAST(row_number() OVER (ORDER BY __row) - 1 AS INTEGER) AS item_index, item_id, __row
FROM item_row WHERE reason IS NULL;

CREATE TEMP TABLE reject AS
SELECT 'items' AS "table", __row AS row, left(item_id, 200) AS key, reason FROM item_row WHERE reason IS NOT NULL;

DROP TABLE item_row;
