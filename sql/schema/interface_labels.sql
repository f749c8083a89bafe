-- interface_labels: the names that an administrator gave interfaces. Structure: run once, frozen on release.

CREATE TABLE linkbeat.interface_labels (
    server_id    text COLLATE "C" REFERENCES servers ON DELETE CASCADE,
    series       text COLLATE "C",
    display_name text COLLATE "C" NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (server_id, series),
    UNIQUE (display_name, server_id)
);

COMMENT ON TABLE linkbeat.interface_labels IS 'Display names of interfaces. Written by linkbeat.set_interface_label alone.';
COMMENT ON COLUMN linkbeat.interface_labels.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.interface_labels.series IS 'The series of the interface.';
COMMENT ON COLUMN linkbeat.interface_labels.display_name IS 'The name that people see, and that `interface=` takes.';
COMMENT ON COLUMN linkbeat.interface_labels.changed_at IS 'When it was last changed.';
