-- Plausible: what can have crossed an interface in the time, by its line rate and by its packets.
-- Replaceable: reapplied on every upgrade.

-- Whether counter n can have gained this much in elapsed_ms.
--   packets  that its direction gained in the same time; null: not known, because that counter fell
--   counted  what the packet counter says in all: 0 where the source does not count packets
-- What the line carries needs no witness. More than that was carried only if packets confirm it: emulated and bonded
-- devices exceed their speed_mbps. Where neither is known, no more than 1 Gb/s is believed of a source that counts packets.
-- In PL/pgSQL, because judge calls it for each counter, and a call of an SQL function there costs five times as much.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible(
    n integer, gain numeric, packets numeric, counted numeric, elapsed_ms integer, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- With the second of grace, as in linkbeat.delta_limit.
    elapsed CONSTANT bigint := elapsed_ms + 1000::bigint;
BEGIN
    IF gain = 0 OR gain <= speed_mbps::bigint * 255 * elapsed / 2 THEN
        RETURN true;
    ELSIF gain > 50000000 * elapsed THEN
        RETURN false;
    ELSIF n > 2 THEN
        RETURN true;
    ELSIF packets > 0 THEN
        RETURN div(gain, 1048576) <= packets;
    ELSIF speed_mbps IS NOT NULL THEN
        RETURN false;
    END IF;
    RETURN counted = 0 OR gain <= 1000::bigint * 255 * elapsed / 2;
END $$;

-- The same over the time since the counter last moved: a source may refresh seldom, or stand still for a while. Looks back
-- 15 minutes at most. Where its packets cannot be read, a counter is believed what it usually gains.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible_since_it_moved(
    n integer, gain numeric, packets numeric, counted numeric, base network_interface_metrics,
    m network_interface_metrics, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    since    CONSTANT timestamptz := m.time - INTERVAL '15 minutes';
    moved_at timestamptz;
BEGIN
    SELECT coalesce(max(r.time) FILTER (WHERE r.delta_kind IN ('rejected', 'first') OR (linkbeat.deltas(r))[n] <> 0), min(r.time))
    INTO moved_at
    FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time >= since AND r.time <= base.time
      AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot);
    IF moved_at < base.time AND linkbeat.is_plausible(
           n, gain,
           coalesce(packets, 0) + (
               SELECT coalesce(sum(CASE n % 2 WHEN 1 THEN r.rx_packets_delta ELSE r.tx_packets_delta END), 0)
               FROM network_interface_metrics r
               WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time > moved_at AND r.time <= base.time
                 AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot)),
           counted, linkbeat.elapsed_ms(moved_at, m.time), speed_mbps) THEN
        RETURN true;
    END IF;
    RETURN n <= 2 AND coalesce(packets, 0) = 0 AND gain <= linkbeat.delta_limit(m.elapsed_ms, NULL)
           AND coalesce(gain <= 4 * (linkbeat.usual(m)).rates[n] * m.elapsed_ms, false);
END $$;

-- The gain of counter n, octets, that was rejected in the row since which it is in doubt, if packets confirm it now: the packet
-- counter had stepped back in that row, is back in row `m`, and its gain carries all octets since then. Null: they do not
-- confirm it, or could be read in that row, and did not then.
--   packets  the gain of the packet counter in `m`, above what it showed before it stepped back
CREATE OR REPLACE FUNCTION linkbeat.confirmed_gain(
    n integer, base network_interface_metrics, m network_interface_metrics, packets numeric, speed_mbps integer
) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE
    rejected network_interface_metrics;
    old      CONSTANT numeric := linkbeat.unsigned(base.old_levels[n]);
BEGIN
    SELECT * INTO rejected FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time = base.doubted_since[n];
    IF rejected.levels[n + 2] = base.levels[n + 2] AND linkbeat.is_plausible(
           n, linkbeat.unsigned(CASE n WHEN 1 THEN m.rx_bytes ELSE m.tx_bytes END) - old, packets,
           linkbeat.unsigned(CASE n WHEN 1 THEN m.rx_packets ELSE m.tx_packets END),
           linkbeat.elapsed_ms(rejected.time - rejected.elapsed_ms * INTERVAL '1 millisecond', m.time), speed_mbps) THEN
        -- More of it may have been rejected since, or counted.
        RETURN linkbeat.unsigned((linkbeat.held(base))[n]) - old - (
            SELECT sum(CASE n WHEN 1 THEN r.rx_bytes_delta ELSE r.tx_bytes_delta END)
            FROM network_interface_metrics r
            WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time >= rejected.time AND r.time < m.time);
    END IF;
    RETURN NULL;
END $$;

-- Whether a counter that fell wrapped at 2**32: the other counter of its direction confirms the wrapped difference.
--   gains  of all counters, above what growth is counted from
--   size   octets per packet as usual; null: not known
-- A packet of more than a jumbo frame confirms it only where such packets are usual; and where the counter fell by half or
-- less, and may have stepped back as well, packets of about the usual size alone. Otherwise any fall of a counter below
-- 2**32 would be a wrap as long as there is traffic.
CREATE OR REPLACE FUNCTION linkbeat.is_wrap(
    n integer, wrapped numeric, reading numeric, level numeric, gains numeric[], elapsed_ms integer, speed_mbps integer, size double precision
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    octets  numeric := CASE WHEN n <= 2 THEN wrapped ELSE gains[n - 2] END;
    packets numeric := CASE WHEN n <= 2 THEN gains[n + 2] ELSE wrapped END;
BEGIN
    RETURN reading <= 4294967295 AND packets > 0 AND octets >= packets
       AND octets <= packets * CASE WHEN size IS NULL THEN 1048576
                                    ELSE least(greatest(8 * size, CASE WHEN 2 * reading < level THEN 9216 ELSE 0 END), 1048576) END
       AND linkbeat.is_plausible(2 - n % 2, octets, packets, packets, elapsed_ms, speed_mbps);
END $$;
