-- Rows that change below a watermark change its finished buckets, at every level and in the same transaction: a late
-- heartbeat shows at once. Inserted rows are added to their buckets, because a bucket is what any split of its rows comes
-- to (linkbeat.family_columns); if rows are changed or deleted, their buckets are computed again.
-- Replaceable: reapplied on every upgrade.
--
-- Each family has a trigger function for its inserts and deletes, and one for its updates. They look at the rows in
-- the transition tables; in order, that is all they do. They are made of the family's columns by create_family.

CREATE OR REPLACE FUNCTION linkbeat.create_recompute(of_family text) RETURNS void LANGUAGE plpgsql AS $create$
DECLARE
    family    record;
    level     record;
    rows_of   record;
    add       text := '';
    recompute text;
    same      text;
BEGIN
    FOR family IN SELECT *, array_to_string(series, ', ') AS columns FROM linkbeat.families f WHERE f.family = of_family LOOP
        same := (SELECT string_agg(format('b.%1$I = c.%1$I', name), ' AND ') FROM unnest(family.series) AS name);
        FOR level IN
            SELECT a.*, k.kept FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation)
            WHERE a.family = family.family ORDER BY a.width
        LOOP
            -- A level gains nothing that the level below has dropped.
            add := add || format($sql$
                    SELECT watermark, greatest(lowest, floor) INTO mark, lowest FROM linkbeat.watermarks WHERE relation = %1$L;
                    INSERT INTO %2$s AS k (bucket, %3$s, %4$s)
                    SELECT time_bucket(%5$L::interval, time), %3$s, %6$s
                    FROM changed WHERE %7$s AND time >= lowest AND time < mark GROUP BY 1, %3$s
                    ON CONFLICT (%3$s, bucket) DO UPDATE SET %8$s;
                    $sql$,
                level.relation, level.kept, family.columns, level.columns, level.width, level.from_rows, family.condition,
                level.with_excluded);
        END LOOP;
        FOR rows_of IN
            SELECT * FROM (VALUES
                ('changed', 'TABLE changed', 'true', format('IF TG_OP = ''INSERT'' THEN lowest := ''-infinity''; %s RETURN NULL; END IF;', add)),
                ('updated', 'TABLE changed UNION ALL TABLE changed_to',
                 -- Whether rows left their bucket: they are folded now, or have another name.
                 format('EXISTS (SELECT %1$s, time FROM changed WHERE %2$s EXCEPT SELECT %1$s, time FROM changed_to WHERE %2$s)',
                        family.columns, family.condition), '')) AS r(kind, rows, are_gone, added)
        LOOP
            recompute := '';
            FOR level IN
                SELECT a.*, k.kept, coalesce(b.kept, a.source::regclass) AS kept_below,
                       (SELECT string_agg(format('%1$I = EXCLUDED.%1$I', name), ', ')
                        FROM linkbeat.family_columns WHERE family_columns.family = a.family) AS assignments
                FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation)
                LEFT JOIN linkbeat.kept b ON b.relation = a.below
                WHERE a.family = family.family ORDER BY a.width
            LOOP
                -- By series and day, from the first bucket that changed to the last: a replay of a day is one pass over
                -- it, and two rows a week apart are not a week.
                recompute := recompute || format($sql$
                    SELECT watermark, floor INTO mark, lowest FROM linkbeat.watermarks WHERE relation = %1$L;
                    SELECT time_bucket(%2$L::interval, min(time)), least(max(time) + %2$L::interval, mark) INTO since, until
                    FROM (%3$s) AS c WHERE time >= lowest AND time < mark;
                    IF since IS NOT NULL THEN
                        IF are_gone THEN
                            DELETE FROM %4$s AS b USING (
                                SELECT DISTINCT time_bucket(%2$L::interval, time) AS bucket, %5$s FROM (%3$s) AS c
                                WHERE time >= lowest AND time < mark) AS c
                            WHERE %6$s AND b.bucket = c.bucket AND b.bucket >= since AND b.bucket < until;
                        END IF;
                        INSERT INTO %4$s AS k (bucket, %5$s, %7$s)
                        SELECT a.* FROM (
                            SELECT %5$s, time_bucket(%2$L::interval, min(time)) AS first,
                                   time_bucket(%2$L::interval, max(time)) + %2$L::interval AS next
                            FROM (%3$s) AS c WHERE time >= lowest AND time < mark
                            GROUP BY %5$s, time_bucket(%8$L::interval, time)) AS c
                        CROSS JOIN LATERAL (
                            SELECT time_bucket(%2$L::interval, %9$s), %5$s, %10$s
                            FROM %11$s AS b
                            WHERE %12$s AND %6$s AND b.%9$s >= c.first AND b.%9$s < c.next
                              AND b.%9$s >= since AND b.%9$s < until
                            GROUP BY 1, %5$s) AS a
                        ON CONFLICT (%5$s, bucket) DO UPDATE SET %13$s;
                    END IF;
                    $sql$,
                    level.relation, level.width, rows_of.rows, level.kept, family.columns, same, level.columns,
                    CASE level.level WHEN '1m' THEN '1 hour' ELSE '1 day' END,
                    level.below_time, level.from_below, level.kept_below, level.below_condition, level.assignments);
            END LOOP;

            EXECUTE format($sql$
                CREATE OR REPLACE FUNCTION linkbeat.recompute_%1$s_%2$s() RETURNS trigger LANGUAGE plpgsql AS $body$
                DECLARE
                    mark   timestamptz;
                    lowest timestamptz;
                    since  timestamptz;
                    until  timestamptz;
                    are_gone boolean;
                BEGIN
                    PERFORM pg_advisory_xact_lock_shared(linkbeat.writers_lock());
                    -- The lowest level's watermark is the highest: in order, there is nothing to do.
                    IF NOT EXISTS (SELECT FROM (%3$s) AS c
                                   WHERE time < (SELECT taking FROM linkbeat.watermarks WHERE relation = '%1$s_1m')) THEN
                        RETURN NULL;
                    END IF;
                    -- What is being taken in at this moment may have been read before these rows were there.
                    PERFORM pg_advisory_xact_lock_shared(linkbeat.taking_lock(relation))
                    FROM linkbeat.watermarks WHERE relation LIKE '%1$s\_%%' AND taking > watermark;
                    %5$s
                    are_gone := %6$s;
                    %4$s
                    RETURN NULL;
                END $body$ $sql$, family.family, rows_of.kind, rows_of.rows, recompute, rows_of.added, rows_of.are_gone);
        END LOOP;

        EXECUTE format($sql$
            CREATE OR REPLACE FUNCTION linkbeat.truncate_%1$s() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                TRUNCATE %2$s;
                RETURN NULL;
            END $body$ $sql$, family.family,
            (SELECT string_agg(kept::text, ', ') FROM linkbeat.kept JOIN linkbeat.aggregates a USING (relation)
             WHERE a.family = family.family));
        -- A trigger of a hypertable cannot be replaced; those that are there call the functions above.
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = family.source::regclass AND tgname = 'truncate_kept') THEN
            EXECUTE format($sql$
                CREATE TRIGGER recompute_inserted AFTER INSERT ON %2$I REFERENCING NEW TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_%1$s_changed();
                CREATE TRIGGER recompute_updated AFTER UPDATE ON %2$I REFERENCING OLD TABLE AS changed NEW TABLE AS changed_to
                    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_%1$s_updated();
                CREATE TRIGGER recompute_deleted AFTER DELETE ON %2$I REFERENCING OLD TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_%1$s_changed();
                CREATE TRIGGER truncate_kept AFTER TRUNCATE ON %2$I
                    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.truncate_%1$s();
                $sql$, family.family, family.source);
        END IF;
    END LOOP;
END $create$;
