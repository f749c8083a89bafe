-- Removing a server with its history: remove_server says so, erase_removed does it.
-- Replaceable: reapplied on every upgrade.

-- False where the server is neither known nor has a token. Its tokens are revoked at once.
CREATE OR REPLACE FUNCTION linkbeat.remove_server(of_server text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.take_token_turn();
    UPDATE linkbeat.tokens SET revoked_at = clock_timestamp() WHERE server_id = of_server AND revoked_at IS NULL;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM servers WHERE server_id = of_server) THEN
        RETURN false;
    END IF;
    INSERT INTO linkbeat.removals (server_id) VALUES (of_server) ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

-- What the server was, chunk by chunk, a transaction each, while it may still report; at last, with its row locked so
-- that its heartbeats wait for an instant, what came meanwhile and the row itself. So what is left of a server is always
-- what its row can be counted on from, and a heartbeat after the end finds nothing: it registers the server again.
-- What was interrupted goes on where it was. Rows before aggregates: a bucket of theirs would be made again.
-- One session at a time does it, by a lease (service/fleet/removal.py). One that has lost its lease unnoticed may go on
-- beside the next: both lock the removal's row in each transaction, and the slower one ends with the faster one. It would
-- otherwise erase what the server reports after its removal.
-- No function may call it: it commits.
CREATE OR REPLACE PROCEDURE linkbeat.erase_removed() LANGUAGE plpgsql AS $$
DECLARE
    removed  record;
    relation record;
    chunk    record;
BEGIN
    <<servers>>
    FOR removed IN SELECT server_id FROM linkbeat.removals ORDER BY requested_at LOOP
        FOR relation IN
            SELECT source::regclass AS name, 'time' AS moment, 0 AS place FROM linkbeat.families
            UNION ALL
            SELECT k.kept, 'bucket', a.width_ms FROM linkbeat.kept k JOIN linkbeat.aggregates a USING (relation)
            ORDER BY place
        LOOP
            FOR chunk IN
                SELECT c.range_start, c.range_end FROM timescaledb_information.chunks c
                WHERE format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass = relation.name
                ORDER BY c.range_start
            LOOP
                PERFORM FROM linkbeat.removals WHERE server_id = removed.server_id FOR UPDATE;
                CONTINUE servers WHEN NOT FOUND;
                EXECUTE format('DELETE FROM %s WHERE server_id = $1 AND %I >= $2 AND %2$I < $3', relation.name, relation.moment)
                USING removed.server_id, chunk.range_start, chunk.range_end;
                COMMIT;
            END LOOP;
        END LOOP;

        PERFORM FROM linkbeat.removals WHERE server_id = removed.server_id FOR UPDATE;
        CONTINUE servers WHEN NOT FOUND;
        PERFORM FROM public.servers WHERE server_id = removed.server_id FOR UPDATE;
        FOR relation IN
            SELECT source::regclass AS name FROM linkbeat.families UNION ALL SELECT kept FROM linkbeat.kept
        LOOP
            EXECUTE format('DELETE FROM %s WHERE server_id = $1', relation.name) USING removed.server_id;
        END LOOP;
        DELETE FROM public.server_boots WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.interface_epochs WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.interface_names WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.interface_events WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.carrier_changes WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.alert_marks WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.late_arrivals WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.moved_series WHERE server_id = removed.server_id;
        DELETE FROM public.servers WHERE server_id = removed.server_id;
        DELETE FROM linkbeat.removals WHERE server_id = removed.server_id;
        COMMIT;
    END LOOP;
END $$;
