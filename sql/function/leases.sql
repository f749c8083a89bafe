-- Leases: taken, extended and released by service/database/leases.py.
-- Replaceable: reapplied on every upgrade.
--
-- A row, and not an advisory lock of a session: it is replicated, so that it holds after a failover too; it ends by the
-- database's clock even if the server never learns that its client is gone; and no pooler gives it to somebody else.

-- False where another holder has it.
CREATE OR REPLACE FUNCTION linkbeat.take_lease(of_name text, new_holder text, for_seconds double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO linkbeat.leases AS l (name, holder, until)
    VALUES (of_name, new_holder, clock_timestamp() + make_interval(secs => for_seconds))
    ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, until = clock_timestamp() + make_interval(secs => for_seconds)
    WHERE l.holder = EXCLUDED.holder OR l.until <= clock_timestamp();
    RETURN FOUND;
END $$;

-- False where it was lost: whoever took it since may have released it again, and the work is no longer this holder's.
CREATE OR REPLACE FUNCTION linkbeat.extend_lease(of_name text, of_holder text, for_seconds double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE linkbeat.leases SET until = clock_timestamp() + make_interval(secs => for_seconds)
    WHERE name = of_name AND holder = of_holder;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.release_lease(of_name text, of_holder text) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM linkbeat.leases WHERE name = of_name AND holder = of_holder;
$$;
