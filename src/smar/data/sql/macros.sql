-- Shared expressions. clean_query is smar.data.text.normalise, which `normalise` calls where a text is not ASCII.
CREATE OR REPLACE TEMP MACRO clean_query(text) AS
    CASE WHEN strlen(text) = length(text) THEN lower(trim(regexp_replace(text, '[\s\x{0b}\x{1c}-\x{1f}]+', ' ', 'g')))
         ELSE normalise(text) END;

-- Whether clean_query would leave nothing: white space, and what Unicode calls default-ignorable, such as U+200B.
CREATE OR REPLACE TEMP MACRO is_blank(text) AS
    text IS NULL OR NOT regexp_matches(
        text, '[^\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}'
        || '\x{ad}\x{34f}\x{61c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180f}\x{200b}-\x{200f}\x{202a}-\x{202e}'
        || '\x{2060}-\x{206f}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{ffa0}\x{fff0}-\x{fff8}\x{1bca0}-\x{1bca3}'
        || '\x{1d173}-\x{1d17a}\x{e0000}-\x{e0fff}\x{2122}\x{2120}]');

-- Exact sums: the order in which threads add must not show in the last digit.
CREATE OR REPLACE TEMP MACRO exact(number) AS CAST(number AS DECIMAL(38, 9));
CREATE OR REPLACE TEMP MACRO approximate(number) AS CAST(number AS DOUBLE);

-- A uniform number in [0, 1) from a pair, the same on every engine.
CREATE OR REPLACE TEMP MACRO pair_hash(query, item_id) AS
    CAST('0x' || substr(md5(query || chr(31) || item_id), 1, 8) AS BIGINT) / 4294967296.0;

CREATE OR REPLACE TEMP MACRO hash_part(query, item_id) AS
    CAST(CASE WHEN pair_hash(query, item_id) < getvariable('test_share') THEN 2
              WHEN pair_hash(query, item_id) < getvariable('test_share')
                   + (1 - getvariable('test_share')) * getvariable('valid_share') THEN 1
              ELSE 0 END AS UTINYINT);
