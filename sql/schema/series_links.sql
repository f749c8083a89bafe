-- Series that are read as parts of other series. Structure: run once, frozen on release.

CREATE TABLE linkbeat.series_links (
    link_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id   text COLLATE "C" NOT NULL REFERENCES servers ON DELETE CASCADE,
    series      text COLLATE "C" NOT NULL,
    into_series text COLLATE "C" NOT NULL CHECK (into_series <> series),
    since       timestamptz NOT NULL DEFAULT '-infinity',
    until       timestamptz NOT NULL DEFAULT 'infinity',
    is_sum      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (since < until)
);
CREATE INDEX series_links_server ON linkbeat.series_links (server_id, series);

COMMENT ON TABLE linkbeat.series_links IS 'What an administrator says of the past: the samples of `series` in [since, until) are samples of `into_series`. No row of a history changes; reads follow linkbeat.series_map. Written by linkbeat.add_link and linkbeat.delete_link alone.';
COMMENT ON COLUMN linkbeat.series_links.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.series_links.series IS 'The series that is read as another one.';
COMMENT ON COLUMN linkbeat.series_links.into_series IS 'The series of the same server that it is read as.';
COMMENT ON COLUMN linkbeat.series_links.since IS 'Time of the first sample that is.';
COMMENT ON COLUMN linkbeat.series_links.until IS 'Time of the first sample that no longer is.';
COMMENT ON COLUMN linkbeat.series_links.is_sum IS 'Whether both may have samples at the same time, whose traffic is added.';
COMMENT ON COLUMN linkbeat.series_links.created_at IS 'When it was made.';

-- What follows from the links, resolved once, when they change. For each series that has any, its segments fill all of
-- time, so that whatever is not here is read as it is stored.
CREATE TABLE linkbeat.series_map (
    server_id      text COLLATE "C" NOT NULL,
    series         text COLLATE "C",
    except_series  text[] COLLATE "C" NOT NULL DEFAULT '{}',
    since          timestamptz NOT NULL,
    until          timestamptz NOT NULL,
    into_server_id text COLLATE "C",
    into_series    text COLLATE "C",
    CHECK (since < until),
    UNIQUE NULLS NOT DISTINCT (server_id, series, since)
);
CREATE INDEX series_map_into ON linkbeat.series_map (into_server_id, into_series);

COMMENT ON TABLE linkbeat.series_map IS 'As what the samples of a series in [since, until) are read. Written by linkbeat.map_series alone.';
COMMENT ON COLUMN linkbeat.series_map.server_id IS 'The server that the samples are stored under.';
COMMENT ON COLUMN linkbeat.series_map.series IS 'The series that they are stored under; null: every series of the server but `except_series`.';
COMMENT ON COLUMN linkbeat.series_map.except_series IS 'With `series` null: the series that have rows of their own.';
COMMENT ON COLUMN linkbeat.series_map.since IS 'Time of the first sample.';
COMMENT ON COLUMN linkbeat.series_map.until IS 'Time of the first sample after them.';
COMMENT ON COLUMN linkbeat.series_map.into_server_id IS 'The server that they are read as samples of; null: none.';
COMMENT ON COLUMN linkbeat.series_map.into_series IS 'The series that they are read as samples of; null: the one of the same name.';

ALTER TABLE linkbeat.installation ADD COLUMN links_revision bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN linkbeat.installation.links_revision IS 'Counts the changes of series_map, so that a service reads it only after a change.';
