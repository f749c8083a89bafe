-- servers: every machine that ever sent a heartbeat, with the newest one's own account of itself.
-- network_interfaces: the newest sample of each interface; the row before the next sample, and what a rate is read from.
-- Structure: run once, frozen on release.

CREATE TABLE servers (
    server_id         text COLLATE "C" PRIMARY KEY,
    hostname          text NOT NULL,
    server_guid       text,
    first_seen        timestamptz NOT NULL,
    last_seen         timestamptz NOT NULL,
    received_at       timestamptz NOT NULL,
    interval_seconds  double precision,
    reported_status   text,
    boot_id           text,
    agent_version     text,
    primary_interface text,
    os_info           jsonb,
    latest_metrics    jsonb,
    filesystems       jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50);  -- every heartbeat updates its row: room on the page keeps the update off the index

COMMENT ON TABLE servers IS 'One row per server: identity, and what its newest heartbeat said.';
COMMENT ON COLUMN servers.first_seen IS 'Time of the earliest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN servers.last_seen IS 'Time of the newest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN servers.received_at IS 'When the service last stored a heartbeat of this server, by the service''s clock.';
COMMENT ON COLUMN servers.interval_seconds IS 'Seconds between heartbeats as the agent says; null: it does not say.';
COMMENT ON COLUMN servers.reported_status IS 'The agent''s own word on its state; whether it is heard from is told by received_at.';
COMMENT ON COLUMN servers.server_guid IS 'The machine''s GUID as the agent last sent one.';
COMMENT ON COLUMN servers.boot_id IS 'Differs after every boot; null: the agent does not say.';
COMMENT ON COLUMN servers.primary_interface IS 'The machine''s main interface, in the agent''s judgement.';
COMMENT ON COLUMN servers.os_info IS 'Operating system, kernel and architecture as last sent.';
COMMENT ON COLUMN servers.latest_metrics IS 'The newest heartbeat''s metrics of the machine, as sent; null: it had none.';
COMMENT ON COLUMN servers.filesystems IS 'Filesystems of the newest heartbeat, as sent.';

CREATE TABLE network_interfaces (
    server_id        text COLLATE "C" NOT NULL,
    interface_name   text COLLATE "C" NOT NULL,
    time             timestamptz NOT NULL,
    boot             bigint,
    rx_bytes         bigint NOT NULL,
    tx_bytes         bigint NOT NULL,
    rx_packets       bigint NOT NULL,
    tx_packets       bigint NOT NULL,
    rx_errors        bigint,
    tx_errors        bigint,
    rx_dropped       bigint,
    tx_dropped       bigint,
    rx_bytes_delta   bigint NOT NULL,
    tx_bytes_delta   bigint NOT NULL,
    elapsed_ms       integer NOT NULL,
    is_up            boolean NOT NULL,
    counts_64bit     boolean NOT NULL,
    PRIMARY KEY (server_id, interface_name)
) WITH (fillfactor = 50);

COMMENT ON TABLE network_interfaces IS
    'Newest sample of each interface ever seen. Current are those whose time is their server''s last_seen.';
COMMENT ON COLUMN network_interfaces.time IS 'When the agent read the counters, by its clock.';
COMMENT ON COLUMN network_interfaces.boot IS 'As in network_interface_metrics, like the columns that follow.';
