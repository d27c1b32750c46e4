-- Shared expressions. clean_query is the SQL twin of smar.data.text.normalise_query.
CREATE OR REPLACE TEMP MACRO clean_query(text) AS
    nfc_normalize(lower(trim(regexp_replace(
        text,
        '[\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+',
        ' ', 'g'))));

CREATE OR REPLACE TEMP MACRO is_blank(text) AS
    text IS NULL OR NOT regexp_matches(
        text, '[^\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]');

-- Exact sums: the order in which threads add must not show in the last digit.
CREATE OR REPLACE TEMP MACRO exact(number) AS CAST(number AS DECIMAL(38, 9));

-- A uniform number in [0, 1) from a pair, the same on every engine.
CREATE OR REPLACE TEMP MACRO pair_hash(query, item_id) AS
    CAST('0x' || substr(md5(query || chr(31) || item_id), 1, 8) AS BIGINT) / 4294967296.0;

CREATE OR REPLACE TEMP MACRO hash_part(query, item_id) AS
    CAST(CASE WHEN pair_hash(query, item_id) < getvariable('test_share') THEN 2
              WHEN pair_hash(query, item_id) < getvariable('test_share')
                   + (1 - getvariable('test_share')) * getvariable('valid_share') THEN 1
              ELSE 0 END AS UTINYINT);
