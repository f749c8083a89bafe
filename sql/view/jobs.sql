-- linkbeat.jobs: what works in the background, and whether it does; the same on both editions.
-- Replaceable: reapplied on every upgrade.
--
-- Rows of timescaledb_information.jobs are the policies of the Community edition, those of linkbeat.maintenance what the
-- service does on the Apache edition. A job is overdue an interval after it should have run, so that one that never
-- comes to run shows as soon as one that fails twice.
CREATE OR REPLACE VIEW linkbeat.jobs AS
SELECT job, every, last_success, last_failure, consecutive_failures, next_start, last_error,
       CASE WHEN NOT is_scheduled THEN 'off'
            WHEN consecutive_failures > 0 THEN 'failing'
            WHEN now() > due + every THEN 'overdue'
            ELSE 'ok' END AS state
FROM (
    SELECT job, every, last_success, last_failure, consecutive_failures, last_error, true AS is_scheduled,
           coalesce(last_start, installed) + every AS next_start,
           coalesce(greatest(last_success, last_failure), installed) + every AS due
    FROM linkbeat.maintenance
    UNION ALL
    SELECT format('%s %s', CASE j.proc_name WHEN 'policy_refresh_continuous_aggregate' THEN 'refresh'
                                            WHEN 'policy_retention' THEN 'retention' ELSE 'columnstore' END,
                  j.hypertable_name),
           j.schedule_interval, nullif(s.last_successful_finish, '-infinity'),
           CASE WHEN NOT s.last_run_success THEN nullif(s.last_finish, '-infinity') END,
           coalesce(s.consecutive_failures, 0),
           CASE WHEN s.consecutive_failures > 0 THEN (
               SELECT e.err_message FROM timescaledb_information.job_errors e
               WHERE e.job_id = j.job_id ORDER BY e.start_time DESC LIMIT 1) END,
           j.scheduled, j.next_start,
           -- While it runs it has no next start, and it is late when it takes longer than its interval.
           coalesce(nullif(s.next_start, '-infinity'), s.last_start, i.installed)
    FROM timescaledb_information.jobs j
    LEFT JOIN _timescaledb_internal.bgw_job_stat s USING (job_id)
    CROSS JOIN linkbeat.installation i
    WHERE j.hypertable_schema IS NOT NULL
) AS job;

COMMENT ON VIEW linkbeat.jobs IS 'What works in the background, and how it went: ok, failing, overdue, or off.';
