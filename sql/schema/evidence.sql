-- What a conclusion about a counter needs beyond the reading before it (sql/function/judge.sql).
-- Structure: run once, frozen on release.

ALTER TABLE network_interface_metrics
    ADD COLUMN ifindex       integer,
    ADD COLUMN levels        bigint[],
    ADD COLUMN old_levels    bigint[],
    ADD COLUMN doubted_since timestamptz[];

COMMENT ON COLUMN network_interface_metrics.ifindex IS 'The kernel''s number of the interface: another one means another device under the same name; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.levels IS 'For each counter (in the order rx and tx of bytes, packets, errors, dropped) the value that growth is counted from, where that is not the reading: after a dip, the highest value before it. Null: the readings. Not null: earlier rows than the one before were asked.';
COMMENT ON COLUMN network_interface_metrics.old_levels IS 'For each counter the value before it fell or jumped, while a later reading may still show that it did neither. Null: nothing is in doubt.';
COMMENT ON COLUMN network_interface_metrics.doubted_since IS 'For each counter, the time of the first row that old_levels puts in doubt, or that was found to be a glitch.';

ALTER TYPE linkbeat.interface_state
    ADD ATTRIBUTE ifindex       integer,
    ADD ATTRIBUTE levels        bigint[],
    ADD ATTRIBUTE old_levels    bigint[],
    ADD ATTRIBUTE doubted_since timestamptz[];

-- Arrival tells two machines under one id from one machine whose clock was wrong: only of two do heartbeats alternate.
ALTER TABLE servers ADD COLUMN live_at timestamptz;
COMMENT ON COLUMN servers.live_at IS 'When a heartbeat that was the newest last arrived live, by the service''s clock; null: none did.';

ALTER TABLE server_boots
    ADD COLUMN arrived_at  timestamptz,
    ADD COLUMN alternates  boolean NOT NULL DEFAULT false,
    ADD COLUMN is_reboot   boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN server_boots.arrived_at IS 'When a heartbeat of this boot last arrived live, out of order or after another boot''s; null: none did.';
COMMENT ON COLUMN server_boots.alternates IS 'Its heartbeats arrived by turns with those of a boot that overlaps it: two machines report under one id.';
COMMENT ON COLUMN server_boots.is_reboot IS 'It followed another boot by a reboot: its id is a UUID, or a sample of its is of kind reboot. Of the first boot it says nothing.';
COMMENT ON TABLE server_boots IS 'From when to when each server was seen in which boot. Boots that overlap and alternate are two machines under one id.';
COMMENT ON COLUMN network_interface_metrics.delta_kind IS
    'How the deltas came about: first (sample), normal (counters grew), gap (they grew, over more than three intervals), reboot, reset (without reboot), wrap (at 2**32), dip (a counter fell for a while; 0 until it is past its old level), glitch (a later sample shows that the reading was wrong; delta 0), rejected (not plausible; delta 0), folded (sum over short-lived interfaces).';

-- Boots that were seen to overlap before arrival was recorded keep what was concluded from it.
UPDATE server_boots b SET alternates = true
FROM server_boots o
WHERE o.server_id = b.server_id AND o.boot <> b.boot AND b.first_seen < o.last_seen AND o.first_seen < b.last_seen;

-- Replaced by linkbeat.judge and its helpers.
DROP FUNCTION IF EXISTS linkbeat.ingest_heartbeats, linkbeat.row_before(network_interface_metrics, boolean),
    linkbeat.settled(network_interface_metrics, network_interface_metrics), linkbeat.is_shared(text),
    linkbeat.track_boot(text, bigint, text, timestamptz, bigint, timestamptz),
    linkbeat.counter_delta(bigint, bigint, boolean, boolean, bigint, integer, bigint, integer);
DROP TYPE linkbeat.delta;
