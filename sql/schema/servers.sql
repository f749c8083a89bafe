-- servers: every machine that ever sent a heartbeat: who it is, and the newest state of it and its interfaces.
-- server_boots: when each machine was seen in which boot.
-- Structure: run once, frozen on release.
--
-- The newest state of all interfaces stands in the server's own row: a heartbeat finds all that its deltas are counted
-- from in one place, and writes it back in one update. A row for each interface cost half of the whole ingest.

CREATE TABLE servers (
    server_id         text COLLATE "C" PRIMARY KEY,
    last_seen         timestamptz NOT NULL,
    first_seen        timestamptz NOT NULL,
    received_at       timestamptz NOT NULL,
    boot              bigint,
    interval_seconds  double precision,
    hostname          text NOT NULL,
    server_guid       text,
    boot_id           text,
    agent_version     text,
    reported_status   text,
    primary_interface text,
    os_info           jsonb,
    latest_metrics    linkbeat.host_metrics,
    filesystems       jsonb NOT NULL DEFAULT '[]',
    shared_since      timestamptz,
    shared_at         timestamptz,
    duplicates        bigint NOT NULL DEFAULT 0,
    conflicts         bigint NOT NULL DEFAULT 0,
    interface_names   text[] COLLATE "C" NOT NULL DEFAULT '{}',
    interfaces        linkbeat.interface_state[] NOT NULL DEFAULT '{}'
) WITH (
    fillfactor = 50,  -- every heartbeat updates its row: room on the page keeps the update off the index
    toast_tuple_target = 8160,  -- a machine with the usual few interfaces stays in its row
    autovacuum_vacuum_scale_factor = 0.05
);
-- Compressing the state of a machine with hundreds of interfaces would cost more, every 30 s, than it saves.
ALTER TABLE servers ALTER interfaces SET STORAGE EXTERNAL, ALTER interface_names SET STORAGE EXTERNAL;

COMMENT ON TABLE servers IS 'One row per server: identity, and what its newest heartbeat said.';
COMMENT ON COLUMN servers.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN servers.last_seen IS 'Time of the newest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN servers.first_seen IS 'Time of the earliest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN servers.received_at IS 'When the service last stored a heartbeat of this server, by the service''s clock.';
COMMENT ON COLUMN servers.boot IS 'Fingerprint of boot_id, as in network_interface_metrics.';
COMMENT ON COLUMN servers.interval_seconds IS 'Seconds between heartbeats as the agent says; null: it does not say.';
COMMENT ON COLUMN servers.hostname IS 'The machine''s hostname as last sent.';
COMMENT ON COLUMN servers.server_guid IS 'The machine''s GUID as the agent last sent one.';
COMMENT ON COLUMN servers.boot_id IS 'Differs after every boot; null: the agent does not say.';
COMMENT ON COLUMN servers.agent_version IS 'Version of the agent as last sent.';
COMMENT ON COLUMN servers.reported_status IS 'The agent''s own word on its state; whether it is heard from is told by received_at.';
COMMENT ON COLUMN servers.primary_interface IS 'The machine''s main interface, in the agent''s judgement.';
COMMENT ON COLUMN servers.os_info IS 'Operating system, kernel and architecture as last sent.';
COMMENT ON COLUMN servers.latest_metrics IS 'The newest heartbeat''s metrics of the machine, as sent; null: it had none.';
COMMENT ON COLUMN servers.filesystems IS 'Filesystems of the newest heartbeat, as sent.';
COMMENT ON COLUMN servers.shared_since IS 'When two machines were first seen to report under this id; null: never.';
COMMENT ON COLUMN servers.shared_at IS 'When they were last seen to.';
COMMENT ON COLUMN servers.duplicates IS 'Heartbeats that were sent again after they had been stored.';
COMMENT ON COLUMN servers.conflicts IS 'Those of the duplicates whose values differed; the first ones stay.';
COMMENT ON COLUMN servers.interface_names IS 'Names in the order of interfaces.';
COMMENT ON COLUMN servers.interfaces IS 'Newest sample of each interface. Current are those whose time is last_seen.';

CREATE TABLE server_boots (
    server_id  text COLLATE "C" NOT NULL,
    boot       bigint NOT NULL,
    boot_id    text,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    PRIMARY KEY (server_id, boot)
);

COMMENT ON TABLE server_boots IS 'From when to when each server was seen in which boot. Boots that overlap are two machines under one id.';
COMMENT ON COLUMN server_boots.server_id IS 'As in servers.';
COMMENT ON COLUMN server_boots.boot IS 'Fingerprint of boot_id, as in network_interface_metrics.';
COMMENT ON COLUMN server_boots.boot_id IS 'The boot''s id as the agent sent it.';
COMMENT ON COLUMN server_boots.first_seen IS 'Time of the first heartbeat of this boot.';
COMMENT ON COLUMN server_boots.last_seen IS 'Time of the last heartbeat of this boot; of the boot under way, of the last that was not in order.';
