-- installation: what was chosen when the schema was installed. One row.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.installation (
    edition     text NOT NULL CHECK (edition IN ('apache', 'community')),
    -- Of the replaceable SQL (sql/function) as last applied: tells whether the functions are this service's.
    fingerprint text,
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row)
);

COMMENT ON TABLE linkbeat.installation IS 'One row: the edition of TimescaleDB that the schema was installed for, and the state of its functions.';
