-- linkbeat.aggregates and its neighbours: the definitions in linkbeat.levels, families and family_columns as SQL.
-- Replaceable: reapplied on every upgrade, before the functions that create aggregates from it.

-- Each column of a family, over rows of the source and over buckets.
CREATE OR REPLACE VIEW linkbeat.column_pieces AS
SELECT family, ordinal, name,
       format('%s(%s)::%s AS %I', combine, of_row, type, name) AS from_rows,
       format('%s(%I)::%s AS %I', combine, name, type, name) AS from_buckets,
       format('(%s)::%s AS %I', of_row, type, name) AS of_row,
       format('%I %s', name, type) AS definition,
       -- Of a bucket that may have no row in the part that keeps the column.
       CASE WHEN of_older IS NULL THEN quote_ident(name) ELSE format('coalesce(%I, %s)::%s AS %1$I', name, of_older, type) END AS of_part,
       type,
       -- Of a finished bucket `k`, with rows that it did not hold yet; the aggregate functions pass over nulls too.
       CASE combine WHEN 'sum' THEN format('%1$I = coalesce(k.%1$I + EXCLUDED.%1$I, k.%1$I, EXCLUDED.%1$I)', name)
                    WHEN 'min' THEN format('%1$I = least(k.%1$I, EXCLUDED.%1$I)', name)
                    WHEN 'max' THEN format('%1$I = greatest(k.%1$I, EXCLUDED.%1$I)', name)
                    WHEN 'bool_or' THEN format('%1$I = coalesce(k.%1$I OR EXCLUDED.%1$I, k.%1$I, EXCLUDED.%1$I)', name) END AS with_excluded
FROM linkbeat.family_columns;

-- Every aggregate, with the pieces of SQL that it is made of. Read by what creates, refreshes and shows them.
--   below, below_time, below_condition   what its finished buckets are made of
--   columns                              their names, after bucket and series
--   from_rows, from_below                each column as an aggregate, over rows of the source and over what is below
--   of_row                               each column of a single row
--   definitions                          names and types
--   with_excluded                        assignments that add rows to a finished bucket `k`
CREATE OR REPLACE VIEW linkbeat.aggregates AS
SELECT format('%s_%s', f.family, l.level) AS relation, f.family, l.level, l.width, l.tail, l.chunk,
       (extract(epoch FROM l.width) * 1000)::bigint AS width_ms,
       f.source, f.condition, array_to_string(f.series, ', ') AS series, f.series AS series_columns,
       CASE WHEN l.below IS NULL THEN f.source ELSE format('%s_%s', f.family, l.below) END AS below,
       CASE WHEN l.below IS NULL THEN 'time' ELSE 'bucket' END AS below_time,
       CASE WHEN l.below IS NULL THEN f.condition ELSE 'true' END AS below_condition,
       c.columns, c.from_rows, c.from_buckets, CASE WHEN l.below IS NULL THEN c.from_rows ELSE c.from_buckets END AS from_below,
       c.of_row, c.definitions, c.with_excluded
FROM linkbeat.levels l
CROSS JOIN linkbeat.families f
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(name), ', ' ORDER BY ordinal) AS columns,
           string_agg(from_rows, ', ' ORDER BY ordinal) AS from_rows,
           string_agg(from_buckets, ', ' ORDER BY ordinal) AS from_buckets,
           string_agg(of_row, ', ' ORDER BY ordinal) AS of_row,
           string_agg(definition, ', ' ORDER BY ordinal) AS definitions,
           string_agg(with_excluded, ', ' ORDER BY ordinal) AS with_excluded
    FROM linkbeat.column_pieces WHERE family = f.family
) c;

-- The columns that each family has gained and nothing keeps yet: linkbeat.create_family adds them.
CREATE OR REPLACE VIEW linkbeat.missing_columns AS
SELECT a.relation, c.*
FROM linkbeat.aggregates a JOIN linkbeat.family_columns c USING (family)
WHERE NOT EXISTS (
    SELECT FROM linkbeat.kept k JOIN pg_attribute t ON t.attrelid = k.kept
    WHERE k.relation = a.relation AND t.attname = c.name AND NOT t.attisdropped);

-- The columns that each part of an aggregate keeps.
CREATE OR REPLACE VIEW linkbeat.kept_columns AS
SELECT a.relation, k.part, c.*
FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation) JOIN linkbeat.column_pieces c USING (family)
JOIN pg_attribute t ON t.attrelid = k.kept AND t.attname = c.name AND NOT t.attisdropped;
