-- interface_names, interface_events: what the interface of each series was called when, and what happened to its device.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.interface_names AS
SELECT n.server_id, n.series AS interface_name, n.os_name, n.since, n.until FROM linkbeat.interface_names n;

COMMENT ON VIEW public.interface_names IS
    'What the operating system called the interface of each series, and when. Of agents that send no evidence there are no rows: the name is the series.';
COMMENT ON COLUMN public.interface_names.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.interface_names.interface_name IS 'Name of the series, as in every other relation: the first name under which the device was seen.';
COMMENT ON COLUMN public.interface_names.os_name IS 'What the operating system called it.';
COMMENT ON COLUMN public.interface_names.since IS 'Time of the first heartbeat with that name.';
COMMENT ON COLUMN public.interface_names.until IS 'Time of the first heartbeat with another name, or in which the name is another device''s; null: it still has it, or had it last.';

-- The series that is meant by a name which no series has: by its display name, or by what the operating system calls the
-- interface now. Null: none.
CREATE OR REPLACE FUNCTION linkbeat.series_called(of_server text, name text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT c.series
    FROM (
        SELECT l.series, 1 AS rank FROM linkbeat.interface_labels l
        WHERE l.server_id = of_server AND l.display_name = series_called.name
        UNION ALL
        SELECT n.series, 2 FROM linkbeat.interface_names n
        WHERE n.server_id = of_server AND n.os_name = series_called.name AND n.until IS NULL AND n.series <> n.os_name
    ) c
    WHERE NOT EXISTS (SELECT FROM linkbeat.interface_names n WHERE n.server_id = of_server AND n.series = series_called.name)
      AND NOT EXISTS (SELECT FROM public.servers s WHERE s.server_id = of_server AND series_called.name = ANY (s.interface_names))
    ORDER BY c.rank LIMIT 1;
END;

-- Two machines under one id have different cards, and nobody replaced any.
CREATE OR REPLACE VIEW public.interface_events AS
SELECT e.server_id, e.time, e.series AS interface_name, e.event, e.detail
FROM linkbeat.interface_events e
WHERE e.event = 'duplicate_address' OR NOT EXISTS (
    SELECT FROM public.server_boots b WHERE b.server_id = e.server_id AND b.boot = e.boot AND b.alternates);

COMMENT ON VIEW public.interface_events IS
    'What happened to the devices of servers whose agents send evidence: renamed, hardware_changed (another device under the same name or in the same slot), duplicate_address (several interfaces report one permanent address, which is then no evidence).';
COMMENT ON COLUMN public.interface_events.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.interface_events.time IS 'Time of the first heartbeat that shows it, by the agent''s clock.';
COMMENT ON COLUMN public.interface_events.interface_name IS 'Name of the series.';
COMMENT ON COLUMN public.interface_events.event IS 'renamed, hardware_changed or duplicate_address.';
COMMENT ON COLUMN public.interface_events.detail IS 'From what to what, and by which evidence: ifindex, permanent_address, bus_path, alias or name.';
