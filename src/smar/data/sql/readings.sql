-- How texts are read as numbers and times. A text that does not fit is null: casts would round and guess.

-- A plain number: digits and at most one point; no exponent, sign of plus, leading zero or bare point.
CREATE OR REPLACE TEMP MACRO is_plain(text) AS
    regexp_full_match(text, '0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]+');

-- Significant digits, whole digits and digits after the point of a plain number.
CREATE OR REPLACE TEMP MACRO digits(plain) AS length(trim(translate(plain, '-.', ''), '0'));
CREATE OR REPLACE TEMP MACRO whole_digits(plain) AS length(ltrim(split_part(plain, '.', 1), '-0'));
CREATE OR REPLACE TEMP MACRO part_digits(plain) AS length(rtrim(split_part(plain, '.', 2), '0'));

-- A double holds it: 15 digits always do, more where they are what the double itself is written as.
CREATE OR REPLACE TEMP MACRO fits_double(plain) AS
    digits(plain) <= 15 AND whole_digits(plain) <= 300
    OR CAST(TRY_CAST(plain AS DOUBLE) AS VARCHAR) IN (plain || '.0', regexp_replace(plain, '(\.[0-9]+?)0*$', '\1'));

-- What a number is written as otherwise, as a plain number: +5, 007, .5, 5.
CREATE OR REPLACE TEMP MACRO plain_form(text) AS
    CASE WHEN is_plain(text) THEN text
         WHEN regexp_full_match(text, '[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)')
         THEN regexp_replace(regexp_replace(regexp_replace(regexp_replace(
              text, '^\+|\.$', '', 'g'), '^(-?)0+([0-9])', '\1\2'), '^(-?)\.', '\10.'), '^-0$', '0')
    END;

CREATE OR REPLACE TEMP MACRO read_double(plain) AS
    CASE WHEN is_plain(plain) AND fits_double(plain) THEN CAST(plain AS DOUBLE) END;

-- 1e-05 is written by machines only: never taken for a number unless the column is one.
CREATE OR REPLACE TEMP MACRO read_exponent(text) AS
    CASE WHEN regexp_full_match(text, '[+-]?[0-9](\.[0-9]{1,16})?[eE][+-]?[0-9]{1,2}') THEN TRY_CAST(text AS DOUBLE) END;

CREATE OR REPLACE TEMP MACRO read_flag(text) AS
    CASE WHEN lower(trim(text)) IN ('true', 't', 'yes', 'y', '1') THEN true
         WHEN lower(trim(text)) IN ('false', 'f', 'no', 'n', '0') THEN false END;

-- A day or a moment as ISO 8601 has it; with an offset it becomes UTC.
CREATE OR REPLACE TEMP MACRO is_day(text) AS regexp_full_match(text, '[0-9]{4}([-/])[0-9]{2}([-/])[0-9]{2}');
CREATE OR REPLACE TEMP MACRO read_iso(text) AS
    CASE WHEN regexp_full_match(text, '[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}'
              || '([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?( ?(Z|UTC)|[+-][0-9]{2}(:?[0-9]{2})?)?)?')
         THEN CAST(TRY_CAST(text AS TIMESTAMPTZ) AS TIMESTAMP) END;

-- Whole numbers that stand for a moment: 20250615, 202506150830 and 20250615083000 are dates; others count seconds,
-- milliseconds, microseconds or nanoseconds since 1970, told apart by size (years 1973 to 5138).
CREATE OR REPLACE TEMP MACRO from_epoch(number) AS
    CASE WHEN number BETWEEN 19000101 AND 21001231 THEN try_strptime(CAST(number AS VARCHAR), '%Y%m%d')
         WHEN number BETWEEN 190001010000 AND 210012312359 THEN try_strptime(CAST(number AS VARCHAR), '%Y%m%d%H%M')
         WHEN number BETWEEN 19000101000000 AND 21001231235959
         THEN try_strptime(CAST(number AS VARCHAR), '%Y%m%d%H%M%S')
         WHEN abs(number) < 100000000000 THEN make_timestamp(number * 1000000)
         WHEN abs(number) < 100000000000000 THEN make_timestamp(number * 1000)
         WHEN abs(number) < 100000000000000000 THEN make_timestamp(number)
         WHEN abs(number) < 9000000000000000000 THEN make_timestamp(number // 1000)
    END;
CREATE OR REPLACE TEMP MACRO from_epoch_part(number) AS
    CASE WHEN number = floor(number) THEN from_epoch(TRY_CAST(number AS BIGINT))
         WHEN abs(number) < 1e11 THEN make_timestamp(CAST(number * 1e6 AS BIGINT))
         WHEN abs(number) < 1e14 THEN make_timestamp(CAST(number * 1e3 AS BIGINT))
         WHEN abs(number) < 1e17 THEN make_timestamp(CAST(number AS BIGINT)) END;
