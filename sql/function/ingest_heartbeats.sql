-- ingest_heartbeats: the only way in for heartbeats, one for each server at most.
-- Idempotent on (server_id, interface_name, time): what is stored already stays as it is.
-- Replaceable: reapplied on every upgrade.
--
-- Input, parallel arrays; a null array stands for one of nulls:
--   beat_*, metric_*  one element per heartbeat, by server_id, each server once
--   sample_*          one element per interface; sample_beats is its heartbeat's place, from 1
--   mount_*           the same for filesystems
--   may_register      whether a server of the batch may be unknown; has_metrics: whether a heartbeat has host metrics
--   beat_skews_ms     the service's clock at arrival less the heartbeat's time; null of what was not sent live
--   beat_reports      what the agent says of itself: servers.agent_report
--   series_budget, fold_seconds  see linkbeat.fold_interfaces
--   beat_identities  the servers.identity_version with which sample_names were resolved (linkbeat.resolve_interfaces)
--   sample_os_names  what the system calls an interface, where that is not its series
-- Output: places of heartbeats
--   registered   that made their server known
--   duplicate    once for each sample that was stored before; of a heartbeat without samples, if it was
--   conflict     the same, for those of them that were stored with other values (the first stays)
--
-- Writers of one server take turns at its row in servers: each then sees all that the one before committed, and
-- neither predecessor nor successor of a sample can appear unseen. Rows are locked in the order of server_id, so
-- that two batches cannot wait for each other.
--
-- One statement does the usual work: samples newer than anything stored. Those whose counters plainly grew are judged
-- within it; of the others judge_newest says what they prove. What is left is rare, and each kind of it has a function of
-- its own: mark_glitches, repair_new, track_boot, fold_interfaces.
CREATE OR REPLACE FUNCTION linkbeat.ingest_heartbeats(
    beat_servers text[], beat_times timestamptz[], beat_boots bigint[], beat_intervals float8[], beat_hostnames text[],
    beat_guids text[], beat_boot_ids text[], beat_agent_versions text[], beat_statuses text[], beat_primaries text[],
    beat_os_infos jsonb[], beat_filesystems jsonb[], may_register boolean, has_metrics boolean,
    metric_cpu_percent float8[], metric_memory_percent float8[], metric_memory_total_mb float8[],
    metric_memory_used_mb float8[], metric_disk_percent float8[], metric_disk_total_gb float8[],
    metric_disk_used_gb float8[], metric_network_rx_bytes bigint[], metric_network_tx_bytes bigint[],
    metric_load_1m float8[], metric_load_5m float8[], metric_load_15m float8[], metric_uptime_seconds float8[],
    metric_temperature_celsius float8[],
    sample_beats integer[], sample_names text[], sample_rx_bytes bigint[], sample_tx_bytes bigint[],
    sample_rx_packets bigint[], sample_tx_packets bigint[], sample_is_up boolean[], sample_rx_errors bigint[],
    sample_tx_errors bigint[], sample_rx_dropped bigint[], sample_tx_dropped bigint[], sample_kinds text[],
    sample_stacked_on text[], sample_speeds integer[], sample_operstates text[], sample_ifindexes integer[],
    sample_is_lowest boolean[], sample_carrier_changes bigint[], sample_os_names text[],
    mount_beats integer[], mount_points text[], mount_devices text[], mount_types text[], mount_total_bytes bigint[],
    mount_used_bytes bigint[], mount_available_bytes bigint[], mount_percents float8[], mount_states text[],
    beat_skews_ms bigint[], beat_reports jsonb[], beat_identities bigint[], series_budget integer, fold_seconds integer,
    OUT registered integer[], OUT duplicate integer[], OUT conflict integer[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- A plan that was made while there were few servers must not read all of them when there are many.
SET enable_seqscan = off
-- Of a hypertable, planning a look-up again costs ten times what the look-up does; chunks are left out at execution too.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    places    CONSTANT integer[] := array_positions(array_fill(1, ARRAY[cardinality(beat_servers)]), 1);  -- from 1 on
    beats     integer;
    late      integer[];
    measured  integer[];
    booted    integer[];
    boots_was bigint[];
    seen_was  timestamptz[];
    live_was  timestamptz[];
    odd       integer[];
    back      integer[];
    back_from timestamptz[];
    folding   integer[];
    outdated  boolean;
BEGIN
    -- A server that is not known gets a row that is older than anything; one whose row alone was deleted, as new as its
    -- history.
    IF may_register THEN
        WITH inserted AS (
            INSERT INTO servers (server_id, last_seen, first_seen, received_at, hostname, identity_version)
            SELECT n.server_id, coalesce(h.time, '-infinity'), n.time, statement_timestamp(), n.hostname,
                   -- Of a server that was removed, a process may still have a version; its epochs are gone.
                   CASE WHEN EXISTS (SELECT FROM linkbeat.interface_epochs e WHERE e.server_id = n.server_id) THEN n.identity END
            FROM unnest(beat_servers, beat_times, beat_hostnames, beat_identities) AS n(server_id, time, hostname, identity)
            LEFT JOIN LATERAL (SELECT m.time FROM network_interface_metrics m WHERE m.server_id = n.server_id
                               ORDER BY m.time DESC LIMIT 1) AS h ON true
            WHERE NOT EXISTS (SELECT FROM servers s WHERE s.server_id = n.server_id)
            ORDER BY 1
            ON CONFLICT (server_id) DO NOTHING
            RETURNING server_id
        )
        SELECT array_agg(array_position(beat_servers, server_id)) INTO registered FROM inserted;
    END IF;

    WITH beat AS MATERIALIZED (
        SELECT n.*, s.last_seen, s.live_at, s.boot AS last_boot, s.interface_names, s.interfaces,
               n.time > s.last_seen AS is_newest, n.identity IS DISTINCT FROM s.identity_version AS is_outdated,
               -- Another boot than that of the newest heartbeat; of a late one, any that is known.
               CASE WHEN n.time > s.last_seen THEN n.boot IS DISTINCT FROM s.boot ELSE n.boot IS NOT NULL END AS is_booted,
               coalesce(n.interval_seconds * 1000, 30000)::integer AS interval_ms, cardinality(s.interfaces) AS known,
               num_nonnulls(cpu_percent, memory_percent, memory_total_mb, memory_used_mb, disk_percent, disk_total_gb,
                            disk_used_gb, load_1m, load_5m, load_15m, uptime_seconds, network_rx_bytes,
                            network_tx_bytes, temperature_celsius) > 0 AS any_metrics
        FROM (
            -- In FROM, each array would be written to a tuplestore of its own and read again. Places are unnested too: of
            -- generate_subscripts, the planner expects 1,000 rows, and for so many it reads all servers.
            SELECT unnest(beat_servers) AS server_id, unnest(beat_times) AS time, unnest(beat_boots) AS boot,
                   unnest(beat_intervals) AS interval_seconds, unnest(beat_hostnames) AS hostname,
                   unnest(beat_guids) AS guid, unnest(beat_boot_ids) AS boot_id,
                   unnest(beat_agent_versions) AS agent_version, unnest(beat_statuses) AS status,
                   unnest(beat_primaries) AS primary_interface, unnest(beat_os_infos) AS os_info,
                   unnest(beat_filesystems) AS filesystems, unnest(metric_cpu_percent) AS cpu_percent,
                   unnest(metric_memory_percent) AS memory_percent, unnest(metric_memory_total_mb) AS memory_total_mb,
                   unnest(metric_memory_used_mb) AS memory_used_mb, unnest(metric_disk_percent) AS disk_percent,
                   unnest(metric_disk_total_gb) AS disk_total_gb, unnest(metric_disk_used_gb) AS disk_used_gb,
                   unnest(metric_network_rx_bytes) AS network_rx_bytes,
                   unnest(metric_network_tx_bytes) AS network_tx_bytes, unnest(metric_load_1m) AS load_1m,
                   unnest(metric_load_5m) AS load_5m, unnest(metric_load_15m) AS load_15m,
                   unnest(metric_uptime_seconds) AS uptime_seconds,
                   unnest(metric_temperature_celsius) AS temperature_celsius, unnest(beat_skews_ms) AS skew_ms,
                   unnest(beat_reports) AS report, unnest(beat_identities) AS identity,
                   unnest(places) AS place
            OFFSET 0
        ) AS n
        JOIN servers s USING (server_id)
        ORDER BY s.server_id
        FOR UPDATE OF s
    ), remembered AS MATERIALIZED (
        -- Of a server with few interfaces, a search in its array costs less.
        SELECT b.place, s.name, s.state FROM beat b, LATERAL linkbeat.states_of(b.interface_names, b.interfaces) AS s
        WHERE b.is_newest AND b.known > 64
        UNION ALL
        SELECT l.place, l.name, l.state FROM linkbeat.samples_before(
            (SELECT array_agg(place) FROM beat WHERE NOT is_newest), beat_servers, beat_times, sample_beats, sample_names) AS l
    ), settled AS MATERIALIZED (
        -- What OFFSET 0 ends is worked out once; without it the planner would put it into each expression above.
        SELECT place, ordinal, name, server_id, time, boot, interval_ms, elapsed_ms, is_newest, is_new, is_folded, known,
               rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, kind,
               stacked_on, speed_mbps, operstate, ifindex, is_lowest, carrier_changes, os_name, was_time, was_first_seen,
               NOT is_new AND (rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped, is_up)
                              IS DISTINCT FROM
                              (was_rx_bytes, was_tx_bytes, was_rx_packets, was_tx_packets, was_rx_errors, was_tx_errors,
                               was_rx_dropped, was_tx_dropped, was_up) AS is_conflict,
               is_plain OR (judged).time IS NOT NULL AS is_settled,
               (judged).old_levels = '{}' AS shows_glitch,
               -- Of one boot: with the device, the kernel's counter begins again.
               CASE WHEN carrier_changes > was_carrier_changes AND boot IS NOT DISTINCT FROM was_boot
                    THEN carrier_changes - was_carrier_changes - (is_up <> was_up)::integer END AS unseen_changes,
               CASE WHEN is_plain THEN rx_bytes - CASE WHEN is_from_zero THEN 0 ELSE coalesce(was_rx_bytes, rx_bytes) END ELSE coalesce((judged).rx_bytes_delta, 0) END AS rx_bytes_delta,
               CASE WHEN is_plain THEN tx_bytes - CASE WHEN is_from_zero THEN 0 ELSE coalesce(was_tx_bytes, tx_bytes) END ELSE coalesce((judged).tx_bytes_delta, 0) END AS tx_bytes_delta,
               CASE WHEN is_plain THEN rx_packets - CASE WHEN is_from_zero THEN 0 ELSE coalesce(was_rx_packets, rx_packets) END ELSE coalesce((judged).rx_packets_delta, 0) END AS rx_packets_delta,
               CASE WHEN is_plain THEN tx_packets - CASE WHEN is_from_zero THEN 0 ELSE coalesce(was_tx_packets, tx_packets) END ELSE coalesce((judged).tx_packets_delta, 0) END AS tx_packets_delta,
               CASE WHEN is_plain THEN rx_errors - CASE WHEN is_from_zero AND was_rx_errors IS NOT NULL THEN 0 ELSE coalesce(was_rx_errors, rx_errors) END ELSE (judged).rx_errors_delta END AS rx_errors_delta,
               CASE WHEN is_plain THEN tx_errors - CASE WHEN is_from_zero AND was_tx_errors IS NOT NULL THEN 0 ELSE coalesce(was_tx_errors, tx_errors) END ELSE (judged).tx_errors_delta END AS tx_errors_delta,
               CASE WHEN is_plain THEN rx_dropped - CASE WHEN is_from_zero AND was_rx_dropped IS NOT NULL THEN 0 ELSE coalesce(was_rx_dropped, rx_dropped) END ELSE (judged).rx_dropped_delta END AS rx_dropped_delta,
               CASE WHEN is_plain THEN tx_dropped - CASE WHEN is_from_zero AND was_tx_dropped IS NOT NULL THEN 0 ELSE coalesce(was_tx_dropped, tx_dropped) END ELSE (judged).tx_dropped_delta END AS tx_dropped_delta,
               CASE WHEN NOT is_plain THEN coalesce((judged).delta_kind, '') WHEN was_time IS NULL THEN 'first'
                    WHEN is_reboot THEN 'reboot' WHEN is_from_zero THEN 'reset' WHEN linkbeat.is_gap(elapsed_ms, interval_ms) THEN 'gap' ELSE 'normal' END AS delta_kind,
               CASE WHEN is_plain THEN widened ELSE coalesce((judged).counts_64bit, widened) END AS counts_64bit,
               -- As judge marks a row for which it asks earlier ones.
               CASE WHEN NOT is_plain THEN (judged).levels
                    WHEN doubts <> '{}' AND rx_bytes < was_rx_bytes AND was_old_levels IS NOT NULL
                         AND linkbeat.is_in_doubt(doubted, time, interval_ms)
                         AND NOT linkbeat.have_run(was_old_levels, was_rx_bytes, was_tx_bytes, (previous).rx_bytes_delta,
                                                   (previous).tx_bytes_delta, (previous).elapsed_ms, greatest((previous).speed_mbps, speed_mbps),
                                                   linkbeat.in_all_ms(doubted, time, elapsed_ms))
                    THEN '{}' END AS levels,
               CASE WHEN NOT is_plain THEN nullif((judged).old_levels, '{}') WHEN doubts IS NOT NULL THEN nullif(doubts, '{}')
                    WHEN NOT is_reboot THEN was_old_levels END AS old_levels,
               CASE WHEN NOT is_plain THEN (judged).doubted_since WHEN doubts = was_old_levels AND NOT is_from_zero THEN was_doubted_since
                    WHEN doubts IS NOT NULL THEN linkbeat.in_doubt_since(doubts, was_doubted_since, CASE WHEN is_from_zero THEN time END)
                    WHEN NOT is_reboot THEN was_doubted_since END AS doubted_since
        FROM (
            -- A boot that was seen before may be another machine's, or lie between rows: repair_deltas sorts it out.
            SELECT j.*, CASE WHEN NOT is_plain AND is_newest AND is_new
                                      AND NOT (was_boot <> boot AND linkbeat.is_known_boot(server_id, boot)) IS TRUE THEN
                       linkbeat.judge_newest(server_id, previous, ROW(
                           time, rx_bytes, tx_bytes, rx_packets, tx_packets, NULL, NULL, NULL, is_up, NULL, NULL, NULL, name,
                           NULL, boot, NULL, rx_errors, tx_errors, rx_dropped, tx_dropped, speed_mbps, NULL, NULL, NULL, ifindex,
                           NULL, NULL, NULL, NULL, NULL)::linkbeat.interface_state, interval_ms, uptime_seconds) END AS judged
            FROM (
                -- Plain: nothing is held against the row before; all counters grew, by no more than its line carries or
                -- than its packets confirm, where they are counted; or there is nothing before. What is_plain says here, linkbeat.judge concludes.
                -- A reboot in no doubt is plain too, and so is what has doubts, counted from 0 where octets fell.
                SELECT l.*, is_reboot OR doubts IS NOT NULL AND rx_bytes < was_rx_bytes AS is_from_zero, was_time IS DISTINCT FROM time AS is_new,  -- what is stored stays as it is
                       CASE WHEN was_time IS NULL OR is_reboot OR doubts IS NOT NULL AND rx_bytes < was_rx_bytes THEN true
                            WHEN (was_boot <> boot) IS NOT TRUE
                                 AND coalesce(was_levels, '{}') = '{}'
                                 AND (was_old_levels IS NULL OR doubts IS NOT NULL)
                            THEN linkbeat.grew_plainly(
                                was_rx_bytes, was_tx_bytes, was_rx_packets, was_tx_packets, was_rx_errors, was_tx_errors,
                                was_rx_dropped, was_tx_dropped, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors,
                                tx_errors, rx_dropped, tx_dropped, elapsed_ms, greatest(was_speed_mbps, speed_mbps))
                            ELSE false END AS is_plain,
                       linkbeat.proves_64bit(rx_bytes, tx_bytes)
                       OR (was_boot <> boot) IS NOT TRUE AND coalesce(was_counts_64bit, false) AS widened,
                       CASE WHEN was_time IS NULL
                            THEN linkbeat.fold_series(name, kind) IS NOT NULL
                                 AND NOT linkbeat.never_folds(name, kind, coalesce(is_lowest, true), primary_interface)
                            ELSE was_folded END AS is_folded
                FROM (
                    -- Each sample with the one before it, which the server's row has unless the sample is late or its
                    -- interface new.
                    SELECT o.*, linkbeat.elapsed_ms(was_time, time) AS elapsed_ms,
                           CASE WHEN was_boot <> boot AND is_newest AND linkbeat.is_uuid_boot(boot) AND NOT linkbeat.is_known_boot(server_id, boot) THEN
                               linkbeat.is_plain_reboot(
                                   linkbeat.elapsed_ms(was_time, time), greatest(was_speed_mbps, speed_mbps), rx_bytes, tx_bytes,
                                   rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped) ELSE false END AS is_reboot,
                           CASE WHEN (rx_bytes < was_rx_bytes OR was_old_levels IS NOT NULL)
                                     AND is_newest AND (was_boot <> boot) IS NOT TRUE AND coalesce(was_levels, '{}') = '{}' THEN
                               CASE WHEN rx_bytes >= was_rx_bytes
                                         AND linkbeat.is_in_doubt(
                                             CASE WHEN (doubted = ALL (was_doubted_since)) IS FALSE THEN linkbeat.oldest(was_doubted_since)
                                                  ELSE doubted END, time, interval_ms)
                                         AND linkbeat.stays_below(was_old_levels, rx_bytes, tx_bytes, rx_packets, tx_packets,
                                                                  rx_errors, tx_errors, rx_dropped, tx_dropped)
                                    THEN was_old_levels
                                    WHEN (doubted = ALL (was_doubted_since)) IS FALSE THEN NULL  -- of several events
                                    ELSE linkbeat.doubts_after(
                                        previous, doubted, server_id, name, time, interval_ms, ifindex, speed_mbps, rx_bytes, tx_bytes,
                                        rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped)
                                    END END AS doubts
                    FROM (
                    -- Its fields once: each look into the composite walks over those before it.
                    SELECT w.*, (previous).time AS was_time, (previous).rx_bytes AS was_rx_bytes, (previous).tx_bytes AS was_tx_bytes,
                           (previous).rx_packets AS was_rx_packets, (previous).tx_packets AS was_tx_packets,
                           (previous).rx_errors AS was_rx_errors, (previous).tx_errors AS was_tx_errors,
                           (previous).rx_dropped AS was_rx_dropped, (previous).tx_dropped AS was_tx_dropped,
                           (previous).speed_mbps AS was_speed_mbps, (previous).boot AS was_boot, (previous).levels AS was_levels,
                           (previous).old_levels AS was_old_levels, (previous).doubted_since AS was_doubted_since,
                           (previous).counts_64bit AS was_counts_64bit, (previous).is_folded AS was_folded,
                           (previous).is_up AS was_up, (previous).first_seen AS was_first_seen,
                           CASE WHEN (previous).doubted_since IS NOT NULL
                                THEN linkbeat.doubted_once((previous).doubted_since) END AS doubted,
                           (previous).carrier_changes AS was_carrier_changes
                    FROM (
                    SELECT n.*, b.server_id, b.time, b.boot, b.interval_ms, b.is_newest, b.known,
                           b.uptime_seconds, b.primary_interface,
                           CASE WHEN b.known = 0 AND b.last_seen = '-infinity' THEN NULL
                                WHEN NOT b.is_newest OR n.state IS DISTINCT FROM NULL THEN n.state
                                WHEN b.known <= 64 AND n.name = ANY (b.interface_names)
                                THEN b.interfaces[array_position(b.interface_names, n.name)]
                                ELSE linkbeat.sample_before(b.server_id, n.name, b.time) END AS previous
                    FROM (
                        -- A full join is hashed or merged, however few rows the planner expects: in a nested loop, thousands
                        -- of interfaces would each be compared with thousands.
                        SELECT * FROM (
                            SELECT unnest(sample_beats) AS place, unnest(sample_names) AS name,
                                   unnest(sample_rx_bytes) AS rx_bytes, unnest(sample_tx_bytes) AS tx_bytes,
                                   unnest(sample_rx_packets) AS rx_packets, unnest(sample_tx_packets) AS tx_packets,
                                   unnest(sample_is_up) AS is_up, unnest(sample_rx_errors) AS rx_errors,
                                   unnest(sample_tx_errors) AS tx_errors, unnest(sample_rx_dropped) AS rx_dropped,
                                   unnest(sample_tx_dropped) AS tx_dropped, unnest(sample_kinds) AS kind,
                                   unnest(sample_stacked_on) AS stacked_on, unnest(sample_speeds) AS speed_mbps,
                                   unnest(sample_operstates) AS operstate, unnest(sample_ifindexes) AS ifindex,
                                   unnest(sample_is_lowest) AS is_lowest,
                                   unnest(sample_carrier_changes) AS carrier_changes,
                                   unnest(sample_os_names) AS os_name, generate_subscripts(sample_beats, 1) AS ordinal
                            OFFSET 0
                        ) AS s
                        FULL JOIN remembered r USING (place, name)
                        OFFSET 0
                    ) n
                    JOIN beat b USING (place)
                    WHERE n.ordinal IS NOT NULL
                    OFFSET 0
                    ) w
                    OFFSET 0
                    ) o
                    OFFSET 0
                ) l
                OFFSET 0
            ) j
            OFFSET 0
        ) p
    ), history AS (
        INSERT INTO network_interface_metrics (
            time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta, rx_packets_delta,
            tx_packets_delta, elapsed_ms, interval_ms, is_up, is_lowest, is_folded, counts_64bit, server_id,
            interface_name, delta_kind, speed_mbps, rx_errors, tx_errors, rx_dropped, tx_dropped, rx_errors_delta,
            tx_errors_delta, rx_dropped_delta, tx_dropped_delta, ifindex, levels, old_levels, doubted_since)
        SELECT time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta, rx_packets_delta,
               tx_packets_delta, elapsed_ms, interval_ms, is_up, coalesce(is_lowest, true), is_folded, counts_64bit,
               server_id, name, delta_kind, speed_mbps, rx_errors, tx_errors, rx_dropped, tx_dropped, rx_errors_delta,
               tx_errors_delta, rx_dropped_delta, tx_dropped_delta, ifindex, levels, old_levels, doubted_since
        FROM settled WHERE is_new
    ), carriers AS (
        INSERT INTO linkbeat.carrier_changes (server_id, interface_name, time, changes)
        SELECT server_id, name, time, unseen_changes FROM settled WHERE is_new AND is_newest AND NOT is_folded AND unseen_changes > 0
        ON CONFLICT DO NOTHING
    ), current AS (
        SELECT place, array_agg(name) AS names, count(was_first_seen) AS remembered,
               array_agg(ROW(
                   time, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta, elapsed_ms, is_up,
                   counts_64bit, coalesce(is_lowest, true), is_folded, name, delta_kind, boot,
                   coalesce(was_first_seen, time), rx_errors, tx_errors, rx_dropped, tx_dropped, speed_mbps, kind,
                   stacked_on, operstate, ifindex, levels, old_levels, doubted_since, carrier_changes,
                   os_name)::linkbeat.interface_state) AS interfaces,
               -- How many interfaces the server has now, with those that are absent.
               max(known) - count(was_first_seen) + count(*) AS more
        FROM settled WHERE is_newest
        GROUP BY place
    ), updated AS (
        UPDATE servers s SET
            last_seen = b.time, first_seen = least(s.first_seen, b.time), received_at = statement_timestamp(),
            received_before = s.received_at,
            live_at = CASE WHEN b.skew_ms IS NOT NULL THEN statement_timestamp() ELSE s.live_at END, clock_skew_ms = coalesce(b.skew_ms, s.clock_skew_ms), agent_report = b.report,
            boot = b.boot, interval_seconds = b.interval_seconds, hostname = b.hostname,
            server_guid = coalesce(b.guid, s.server_guid), boot_id = b.boot_id,
            agent_version = coalesce(b.agent_version, s.agent_version), reported_status = b.status,
            primary_interface = b.primary_interface, os_info = coalesce(b.os_info, s.os_info),
            latest_metrics = CASE WHEN b.any_metrics THEN ROW(b.cpu_percent, b.memory_percent, b.memory_total_mb, b.memory_used_mb,
                b.disk_percent, b.disk_total_gb, b.disk_used_gb, b.network_rx_bytes, b.network_tx_bytes, b.load_1m,
                b.load_5m, b.load_15m, b.uptime_seconds, b.temperature_celsius)::linkbeat.host_metrics END,
            filesystems = b.filesystems,
            interfaces = coalesce(r.interfaces, c.interfaces), interface_names = coalesce(r.names, c.names)
        FROM beat b LEFT JOIN current c USING (place)
        LEFT JOIN LATERAL (SELECT f.* FROM linkbeat.remembered_interfaces(
                               b.interfaces, c.interfaces, b.time, fold_seconds) AS f
                           WHERE c.remembered IS DISTINCT FROM b.known OFFSET 0) AS r ON true
        WHERE s.server_id = b.server_id AND b.is_newest
    )
    SELECT s.duplicate, s.conflict, s.odd, s.back, s.back_from, b.beats, b.outdated, b.late, b.booted, b.boots_was, b.seen_was, b.live_was,
           s.folded || (SELECT array_agg(place) FROM current WHERE more > series_budget)
    INTO duplicate, conflict, odd, back, back_from, beats, outdated, late, booted, boots_was, seen_was, live_was, folding
    FROM (
        SELECT array_agg(place) FILTER (WHERE NOT is_new) AS duplicate,
               array_agg(place) FILTER (WHERE is_conflict) AS conflict,
               array_agg(ordinal) FILTER (WHERE is_new AND NOT (is_settled AND is_newest)) AS odd,
               array_agg(ordinal) FILTER (WHERE shows_glitch) AS back, array_agg(was_time) FILTER (WHERE shows_glitch) AS back_from,
               array_agg(place) FILTER (WHERE is_new AND is_folded) AS folded
        FROM settled
    ) s, (
        SELECT count(*) AS beats, bool_or(is_outdated) AS outdated, array_agg(place) FILTER (WHERE NOT is_newest) AS late,
               array_agg(place) FILTER (WHERE is_booted) AS booted,
               array_agg(last_boot) FILTER (WHERE is_booted) AS boots_was,
               array_agg(last_seen) FILTER (WHERE is_booted) AS seen_was,
               array_agg(live_at) FILTER (WHERE is_booted) AS live_was
        FROM beat
    ) b;

    IF beats < cardinality(beat_servers) THEN
        RAISE EXCEPTION 'a server is not known, or not any more' USING ERRCODE = 'serialization_failure';
    ELSIF outdated THEN
        RAISE EXCEPTION 'names of interfaces are to be resolved again' USING ERRCODE = 'serialization_failure';
    END IF;
    IF late IS NOT NULL THEN
        SELECT array_agg(p) INTO measured FROM unnest(late) AS p
        WHERE EXISTS (SELECT FROM server_metrics WHERE server_id = beat_servers[p] AND time = beat_times[p]);
    END IF;
    IF has_metrics OR mount_beats IS NOT NULL THEN
        PERFORM linkbeat.ingest_host_metrics(
            beat_servers => beat_servers, beat_times => beat_times, cpu_percent => metric_cpu_percent,
            memory_percent => metric_memory_percent, memory_total_mb => metric_memory_total_mb,
            memory_used_mb => metric_memory_used_mb, disk_percent => metric_disk_percent,
            disk_total_gb => metric_disk_total_gb, disk_used_gb => metric_disk_used_gb, load_1m => metric_load_1m,
            load_5m => metric_load_5m, load_15m => metric_load_15m, uptime_seconds => metric_uptime_seconds,
            temperature_celsius => metric_temperature_celsius,
            mount_beats => mount_beats, mount_points => mount_points, mount_devices => mount_devices,
            mount_types => mount_types, mount_total_bytes => mount_total_bytes, mount_used_bytes => mount_used_bytes,
            mount_available_bytes => mount_available_bytes, mount_percents => mount_percents,
            mount_states => mount_states);
    END IF;
    IF odd IS NOT NULL THEN
        PERFORM linkbeat.keep_counters_after(beat_servers[sample_beats[o]], sample_names[o], beat_times[sample_beats[o]])
        FROM unnest(odd) AS o
        WHERE beat_times[sample_beats[o]] < (SELECT thinned_until FROM linkbeat.installation);
    END IF;
    IF late IS NOT NULL THEN
        folding := folding || ARRAY(
            SELECT p FROM unnest(late) AS p WHERE cardinality(array_positions(sample_beats, p)) > series_budget);
    END IF;
    IF folding IS NOT NULL THEN
        PERFORM linkbeat.fold_interfaces(
            beat_servers[p], beat_times[p],
            ARRAY(SELECT n.name FROM unnest(sample_beats, sample_names) AS n(place, name) WHERE n.place = p),
            series_budget, fold_seconds)
        FROM (SELECT DISTINCT unnest(folding)) AS f(p);
    END IF;
    IF booted IS NOT NULL THEN
        PERFORM linkbeat.track_boot(
            beat_servers[p], beat_boots[p], beat_boot_ids[p], beat_times[p],
            beat_skews_ms[p] IS NOT NULL
            OR beat_times[p] > statement_timestamp() - 3 * coalesce(beat_intervals[p], 30) * INTERVAL '1 second',
            boot_was, was_seen, was_live)
        FROM unnest(booted, boots_was, seen_was, live_was) AS b(p, boot_was, was_seen, was_live)
        WHERE p <> ALL (coalesce(duplicate, '{}'));
    END IF;
    IF back IS NOT NULL THEN
        PERFORM linkbeat.mark_glitches(array_agg(beat_servers[sample_beats[o]]), array_agg(sample_names[o]), array_agg(moment))
        FROM unnest(back, back_from) AS b(o, moment);
    END IF;
    IF odd IS NOT NULL THEN
        PERFORM linkbeat.repair_new(
            array_agg(beat_servers[sample_beats[o]]), array_agg(sample_names[o]), array_agg(beat_times[sample_beats[o]]))
        FROM unnest(odd) AS o;
    END IF;
    IF folding IS NOT NULL THEN
        PERFORM linkbeat.sum_folded(array_agg(beat_servers[p]), array_agg(beat_times[p]))
        FROM (SELECT DISTINCT unnest(folding)) AS f(p);
    END IF;
    IF late IS NOT NULL THEN
        duplicate := duplicate || linkbeat.note_late(
            late, beat_servers, beat_times, sample_beats, measured, duplicate, conflict);
    END IF;
END $$;
