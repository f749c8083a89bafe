-- linkbeat_ingest, linkbeat_read, analyst: the roles of this cluster, shared by all its databases.
-- A superuser may run the files of sql/role with psql, where the migrating user may not create roles.
-- Replaceable: reapplied on every upgrade.
--
-- Databases of one cluster may be migrated at once, and an advisory lock is one database's own: what another one is
-- just making is waited for by the unique index on its name. Only who makes a role also sets it up, so that no two
-- write one row, and that what an administrator set afterwards stays.

DO $roles$
DECLARE
    -- Whoever owns the schema takes these roles on; the superuser who may run this needs no leave.
    service CONSTANT regrole := (SELECT nspowner FROM pg_namespace WHERE nspname = 'linkbeat');
    role    record;
BEGIN
    FOR role IN
        SELECT * FROM (VALUES
            ('linkbeat_ingest', 'Linkbeat: may write by the functions that are for it, and nothing else.'),
            ('linkbeat_read', 'Linkbeat: may read what the service''s API answers from.'),
            ('analyst', 'Linkbeat: may read the views in public; for people and their tools.')) AS r(name, words)
    LOOP
        BEGIN
            IF to_regrole(role.name) IS NULL THEN
                EXECUTE format('CREATE ROLE %I', role.name);
                EXECUTE format('COMMENT ON ROLE %I IS %L', role.name, role.words);
                IF role.name = 'analyst' THEN
                    -- Of who logs in under this name, and of make psql; a role that is a member has its own.
                    ALTER ROLE analyst CONNECTION LIMIT 20;
                    ALTER ROLE analyst SET statement_timeout = '60s';
                    ALTER ROLE analyst SET idle_in_transaction_session_timeout = '60s';
                    ALTER ROLE analyst SET default_transaction_read_only = on;
                END IF;
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;  -- another database has just made it
            WHEN insufficient_privilege THEN NULL;  -- python -m service migrate says what to do
        END;
        BEGIN
            IF NOT pg_has_role(service, role.name, 'SET') THEN
                EXECUTE format('GRANT %I TO %s', role.name, service);
            END IF;
        EXCEPTION
            WHEN undefined_object OR insufficient_privilege OR unique_violation THEN NULL;
        END;
    END LOOP;
END $roles$;
