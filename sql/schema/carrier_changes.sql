-- Changes of links that no two samples show. Structure: run once, frozen on release.

CREATE TABLE linkbeat.carrier_changes (
    server_id      text COLLATE "C" NOT NULL,
    interface_name text COLLATE "C" NOT NULL,
    time           timestamptz NOT NULL,
    changes        bigint NOT NULL CHECK (changes > 0),
    PRIMARY KEY (server_id, interface_name, time)
);
CREATE INDEX carrier_changes_time ON linkbeat.carrier_changes (time);

COMMENT ON TABLE linkbeat.carrier_changes IS 'How often a link came or went between a sample and the one before it, beyond what their is_up shows. Most samples have no row.';
COMMENT ON COLUMN linkbeat.carrier_changes.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.carrier_changes.interface_name IS 'As in network_interface_metrics.';
COMMENT ON COLUMN linkbeat.carrier_changes.time IS 'Time of the sample.';
COMMENT ON COLUMN linkbeat.carrier_changes.changes IS 'By the kernel''s counter, less the change of is_up.';
