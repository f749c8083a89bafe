-- Which device each interface of a server is, and what it was called when. Structure: run once, frozen on release.

-- What one heartbeat says of one interface, beside its counters.
CREATE TYPE linkbeat.interface_evidence AS (
    os_name text, kind text, ifindex integer, permanent_address text, bus_path text, alias text
);

-- What is known of one series: the newest name and evidence of its device. `boot` is where `ifindex` holds.
CREATE TYPE linkbeat.interface_identity AS (
    series text, os_name text, kind text, boot bigint, ifindex integer, permanent_address text, bus_path text, alias text,
    seen timestamptz
);

-- Rows of one series, of one boot and within [since, until), that belong to another.
CREATE TYPE linkbeat.interface_move AS (was text, series text, boot bigint, since timestamptz, until timestamptz);

ALTER TYPE linkbeat.interface_state
    ADD ATTRIBUTE carrier_changes bigint,
    ADD ATTRIBUTE os_name         text;

ALTER TABLE servers ADD COLUMN identity_version bigint;
COMMENT ON COLUMN servers.identity_version IS 'Differs after every change of interface_epochs: names of interfaces that were resolved before it are resolved again. Null: the agent sends no evidence, and names are series.';

CREATE TABLE linkbeat.interface_epochs (
    server_id  text COLLATE "C" NOT NULL,
    boot       bigint NOT NULL,
    since      timestamptz NOT NULL,
    is_base    boolean NOT NULL DEFAULT false,
    evidence   linkbeat.interface_evidence[] NOT NULL,
    series     text[] NOT NULL,
    identities linkbeat.interface_identity[] NOT NULL,
    events     jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (server_id, since, boot)
);
-- Addresses of hardware repeat in every epoch.
ALTER TABLE linkbeat.interface_epochs ALTER evidence SET COMPRESSION pglz, ALTER identities SET COMPRESSION pglz;

COMMENT ON TABLE linkbeat.interface_epochs IS 'From when on the interfaces of a server, in a boot, had these names and this evidence. What follows from it depends on the heartbeats alone, and not on the order in which they arrived.';
COMMENT ON COLUMN linkbeat.interface_epochs.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.interface_epochs.boot IS 'As in network_interface_metrics; 0 for ids that are not UUIDs, and for none.';
COMMENT ON COLUMN linkbeat.interface_epochs.since IS 'Time of the first heartbeat with this evidence; it holds until the next epoch of the same boot.';
COMMENT ON COLUMN linkbeat.interface_epochs.is_base IS 'Earlier epochs were deleted: nothing is inserted before this one.';
COMMENT ON COLUMN linkbeat.interface_epochs.evidence IS 'The interfaces, by name.';
COMMENT ON COLUMN linkbeat.interface_epochs.series IS 'The series of each of them.';
COMMENT ON COLUMN linkbeat.interface_epochs.identities IS 'What is known of every series after this epoch and those before it.';
COMMENT ON COLUMN linkbeat.interface_epochs.events IS 'What it shows: see interface_events.';

CREATE TABLE linkbeat.interface_names (
    server_id text COLLATE "C" NOT NULL,
    series    text COLLATE "C" NOT NULL,
    os_name   text COLLATE "C" NOT NULL,
    since     timestamptz NOT NULL,
    until     timestamptz,
    PRIMARY KEY (server_id, series, since)
);

COMMENT ON TABLE linkbeat.interface_names IS 'What the system called the interface of each series, in [since, until); null: to this day. Of agents that send no evidence there are no rows: the name is the series.';
COMMENT ON COLUMN linkbeat.interface_names.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.interface_names.series IS 'interface_name in every other relation: the first name under which the device was seen.';
COMMENT ON COLUMN linkbeat.interface_names.os_name IS 'Its name then.';
COMMENT ON COLUMN linkbeat.interface_names.since IS 'Time of the first heartbeat with that name.';
COMMENT ON COLUMN linkbeat.interface_names.until IS 'Time of the first heartbeat with another one, or in which the name is another device''s; null: none.';

CREATE TABLE linkbeat.interface_events (
    server_id text COLLATE "C" NOT NULL,
    time      timestamptz NOT NULL,
    boot      bigint NOT NULL,
    series    text COLLATE "C" NOT NULL,
    event     text COLLATE "C" NOT NULL,
    detail    jsonb NOT NULL,
    PRIMARY KEY (server_id, time, series, event, boot)
);

COMMENT ON TABLE linkbeat.interface_events IS 'What happened to the devices of a server: renamed, hardware_changed, duplicate_address.';
COMMENT ON COLUMN linkbeat.interface_events.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.interface_events.time IS 'Time of the first heartbeat that shows it.';
COMMENT ON COLUMN linkbeat.interface_events.boot IS 'As in interface_epochs.';
COMMENT ON COLUMN linkbeat.interface_events.series IS 'The series of the interface.';
COMMENT ON COLUMN linkbeat.interface_events.event IS 'renamed, hardware_changed or duplicate_address.';
COMMENT ON COLUMN linkbeat.interface_events.detail IS 'From what to what, and by which evidence.';
