-- leases: work that one of many services does at a time, and which one does it.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.leases (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);

COMMENT ON TABLE linkbeat.leases IS 'Work that one of many services does at a time (maintenance, removal), and which service does it.';
COMMENT ON COLUMN linkbeat.leases.holder IS 'Host, process id and a random part: another start is another holder.';
COMMENT ON COLUMN linkbeat.leases.until IS 'By the database''s clock: a service that does not extend its lease in time has lost it.';
