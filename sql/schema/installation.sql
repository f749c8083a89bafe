-- installation: what was chosen when the schema was installed. One row.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.installation (
    edition       text NOT NULL CHECK (edition IN ('apache', 'community')),
    -- Of the replaceable SQL (sql/function) as last applied: tells whether the functions are this service's.
    fingerprint   text,
    installed     timestamptz NOT NULL DEFAULT now(),
    -- No row from here on has been thinned (linkbeat.thin).
    thinned_until timestamptz NOT NULL DEFAULT '-infinity',
    is_only_row   boolean PRIMARY KEY DEFAULT true CHECK (is_only_row)
);

COMMENT ON TABLE linkbeat.installation IS 'One row: the edition of TimescaleDB that the schema was installed for, and the state of its functions.';

-- What linkbeat.configure was last told, in days; service/settings.py says what each means.
CREATE TABLE linkbeat.configuration (
    setting text PRIMARY KEY,
    days    double precision NOT NULL
);

COMMENT ON TABLE linkbeat.configuration IS 'How long rows are kept, and how far back they are taken: what the database works by.';

-- The work that TimescaleDB has no policies for in this edition, and the policies that the service has taken over from
-- TimescaleDB's scheduler. The service does it (service/database/maintenance.py) and writes here how it went;
-- linkbeat.jobs reads it.
CREATE TABLE linkbeat.maintenance (
    job                  text PRIMARY KEY,
    statement            text NOT NULL,
    every                interval NOT NULL,
    is_taken_over        boolean NOT NULL DEFAULT false,
    installed            timestamptz NOT NULL DEFAULT now(),
    last_start           timestamptz,
    last_success         timestamptz,
    last_failure         timestamptz,
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_error           text
);

COMMENT ON TABLE linkbeat.maintenance IS 'What the service does in the background, and how it went.';
