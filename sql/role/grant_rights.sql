-- What each role may do in this database, which is Linkbeat's own. Everything else is nothing.
-- Views in public are for analysts, tables nowhere are.
-- Replaceable: reapplied on every upgrade.

DO $rights$
DECLARE
    one record;
BEGIN
    REVOKE ALL ON SCHEMA linkbeat FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA linkbeat FROM PUBLIC;
    REVOKE ALL ON ALL ROUTINES IN SCHEMA linkbeat FROM PUBLIC;
    REVOKE ALL ON FUNCTION
        public.billing_period, public.day_start, public.interface_last_change, public.network_counters, public.network_days, public.network_total,
        public.server_total, public.network_forecast, public.network_month, public.network_percentile, public.quota_usage,
        public.linked_traffic, public.linked_samples
    FROM PUBLIC;
    FOR one IN
        SELECT oid::regtype AS type FROM pg_type
        WHERE typnamespace = 'linkbeat'::regnamespace AND typtype = 'c' AND typrelid IN (
            SELECT oid FROM pg_class WHERE relkind = 'c')
    LOOP
        EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', one.type);
    END LOOP;

    -- What everyone may do by default: add jobs to TimescaleDB's, fill the disk with large objects, and take the advisory
    -- locks that ingest and maintenance wait for. Only a superuser can end that.
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        FOR one IN
            SELECT p.oid::regprocedure AS function FROM pg_proc p
            WHERE proname = 'add_job' AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
               OR pronamespace = 'pg_catalog'::regnamespace
                  AND (proname IN ('lo_creat', 'lo_create', 'lo_from_bytea') OR proname ~ '^pg_(try_)?advisory_(xact_)?lock')
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.function);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one.function,
                (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'linkbeat'));
        END LOOP;
    END IF;

    -- Temporary tables are counted by no limit, and a full disk ends the server for everybody.
    BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;  -- the database's owner can
    END;
    -- Sorts and joins that spill are. Only a superuser may set it, and what an administrator has set stays.
    IF to_regrole('analyst') IS NOT NULL AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       AND NOT EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
                       WHERE setrole = to_regrole('analyst') AND setting LIKE 'temp_file_limit=%') THEN
        BEGIN
            ALTER ROLE analyst SET temp_file_limit = '1GB';
        EXCEPTION
            WHEN internal_error THEN NULL;  -- another database of the cluster has just set it
        END;
    END IF;

    IF num_nulls(to_regrole('linkbeat_ingest'), to_regrole('linkbeat_read'), to_regrole('analyst')) > 0 THEN
        RETURN;  -- the migrating user may not create roles: sql/role/create_roles.sql
    END IF;

    GRANT USAGE ON SCHEMA linkbeat TO linkbeat_ingest, linkbeat_read;
    GRANT EXECUTE ON FUNCTION
        linkbeat.ingest_heartbeats, linkbeat.resolve_interfaces, linkbeat.configure_server, linkbeat.create_token, linkbeat.end_session, linkbeat.enrol_server,
        linkbeat.note_token_use, linkbeat.register_server, linkbeat.remove_server, linkbeat.revoke_token,
        linkbeat.set_quota, linkbeat.listen, linkbeat.evaluate_alerts, linkbeat.set_alert_rule, linkbeat.delete_alert_rule,
        linkbeat.set_alert_channel, linkbeat.delete_alert_channel, linkbeat.set_alert_mute, linkbeat.delete_alert_mute,
        linkbeat.act_as, linkbeat.audit, linkbeat.set_labels, linkbeat.set_interface_label, linkbeat.request_report, linkbeat.add_link, linkbeat.delete_link, linkbeat.preview_link, linkbeat.set_predecessor, linkbeat.preview_predecessor,
        linkbeat.add_alias, linkbeat.delete_alias, linkbeat.acknowledge_alert, linkbeat.claim_messages, linkbeat.message_delivered, linkbeat.message_failed
    TO linkbeat_ingest;

    GRANT SELECT ON
        public.servers, linkbeat.server_config, linkbeat.installation, linkbeat.schema_version, linkbeat.jobs,
        linkbeat.tokens, linkbeat.removals, linkbeat.ended_sessions, linkbeat.server_labels, linkbeat.quotas,
        linkbeat.series_map, linkbeat.series_links, linkbeat.successions, linkbeat.interface_labels,
        linkbeat.server_aliases
    TO linkbeat_read;
    GRANT EXECUTE ON FUNCTION linkbeat.unsigned, linkbeat.still_shared, linkbeat.is_online, linkbeat.alert_episodes,
        linkbeat.tags_of, linkbeat.tag_key, linkbeat.has_tags, linkbeat.is_tagged, linkbeat.matches_tags, linkbeat.version_of,
        linkbeat.labels_json, linkbeat.rule_json, linkbeat.quota_json, linkbeat.succession_json, linkbeat.interface_label_json, linkbeat.series_called, linkbeat.predecessor_suggestions
    TO linkbeat_read;
    -- Of channels, all but what is secret.
    GRANT SELECT ON linkbeat.alert_clock, linkbeat.listening, linkbeat.alert_mutes TO linkbeat_read;
    GRANT SELECT (channel_id, kind, min_severity, sends_resolved, sends_late, digest, time_zone, enabled, managed_by)
        ON linkbeat.alert_channels TO linkbeat_read;

    -- For the routes and the delivery of alerts. The service puts a channel's secrets into `secret`, never into `spec`.
    GRANT SELECT (spec) ON linkbeat.alert_channels TO linkbeat_read;
    GRANT EXECUTE ON FUNCTION linkbeat.is_muted, linkbeat.is_mute_on, linkbeat.globs_regex, linkbeat.is_server_in TO linkbeat_read;
    GRANT EXECUTE ON FUNCTION linkbeat.alert_channel_secrets, linkbeat.claim_deliveries, linkbeat.oldest_undelivered, linkbeat.standing_alerts
    TO linkbeat_ingest;

    GRANT USAGE ON SCHEMA public TO linkbeat_read, analyst;
    GRANT SELECT ON
        public.agent_overview, public.server_overview, public.server_reboots, public.server_samples,
        public.server_metrics_1m, public.server_metrics_15m, public.server_metrics_1h, public.server_metrics_1d,
        public.interface_overview, public.interface_names, public.interface_events, public.network_samples, public.network_events,
        public.network_traffic_1m, public.network_traffic_15m, public.network_traffic_1h, public.network_traffic_1d,
        public.filesystem_samples, public.filesystem_metrics_1m, public.filesystem_metrics_15m,
        public.filesystem_metrics_1h, public.filesystem_metrics_1d, public.quotas,
        public.alerts, public.alert_events, public.alert_rules, public.alert_messages, public.audit_log, public.server_tags, public.interface_links,
        public.server_successions, public.server_aliases
    TO linkbeat_read, analyst;
    GRANT EXECUTE ON FUNCTION
        public.billing_period, public.day_start, public.network_counters, linkbeat.thinning_step, public.network_days,
        public.network_total, public.server_total, public.network_forecast, public.network_month,
        public.network_percentile, public.quota_usage, public.interface_last_change, public.linked_traffic, public.linked_samples,
        linkbeat.is_linked, linkbeat.account_since, linkbeat.linked_servers, linkbeat.linked_rows, linkbeat.linked_total, linkbeat.linked_days, linkbeat.linked_percentile
    TO linkbeat_read, analyst;

    -- A view reads tables in its owner's name, but calls functions in the reader's. Without USAGE on the schema an
    -- analyst cannot call them in a query of their own.
    FOR one IN
        SELECT DISTINCT p.oid::regprocedure AS function
        FROM pg_proc p
        JOIN pg_depend d ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid
        JOIN pg_class c ON c.oid = r.ev_class
        WHERE p.pronamespace = 'linkbeat'::regnamespace AND c.relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO linkbeat_read, analyst', one.function);
    END LOOP;
END $rights$;
