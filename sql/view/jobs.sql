-- linkbeat.jobs: what works in the background, and whether it does; the same on both editions.
-- Replaceable: reapplied on every upgrade.
--
-- On the Apache edition they are what linkbeat.maintenance lists, and the service does them. On Community they are
-- TimescaleDB's policies; one that its scheduler fails at, or never comes to for want of workers, is taken over by the
-- service. A job is overdue an interval after it should have run: one that never comes to run shows as soon as one that
-- fails twice.
--   state       ok, failing, overdue, taken over, or off
--   statement   what the service runs, now if is_due
CREATE OR REPLACE VIEW linkbeat.jobs AS
WITH job AS (
    SELECT job, every, last_success, last_failure, consecutive_failures, last_error, last_start + every AS next_start,
           statement, last_start,
           CASE WHEN consecutive_failures > 0 THEN 'failing'
                WHEN now() > coalesce(greatest(last_success, last_failure), installed) + 2 * every THEN 'overdue'
                ELSE 'ok' END AS state,
           true AS is_the_services
    FROM linkbeat.maintenance WHERE NOT is_taken_over
    UNION ALL
    SELECT p.job, p.every, greatest(p.last_success, m.last_success), greatest(p.last_failure, m.last_failure),
           greatest(p.consecutive_failures, m.consecutive_failures), coalesce(m.last_error, p.last_error), p.next_start,
           p.statement, m.last_start,
           CASE WHEN p.state IN ('failing', 'overdue') AND m.consecutive_failures = 0
                     AND now() < m.last_success + 2 * greatest(p.every, INTERVAL '1 minute') THEN 'taken over'
                ELSE p.state END,
           p.state IN ('failing', 'overdue')
    FROM (
        SELECT format('%s %s', CASE j.proc_name WHEN 'policy_refresh_continuous_aggregate' THEN 'refresh'
                                                WHEN 'policy_retention' THEN 'retention' ELSE 'columnstore' END,
                      coalesce(j.hypertable_name, j.config ->> 'hypertable')) AS job,
               j.schedule_interval AS every, nullif(s.last_successful_finish, '-infinity') AS last_success,
               CASE WHEN NOT s.last_run_success THEN nullif(s.last_finish, '-infinity') END AS last_failure,
               coalesce(s.consecutive_failures, 0) AS consecutive_failures,
               CASE WHEN s.consecutive_failures > 0 THEN (
                   SELECT e.err_message FROM timescaledb_information.job_errors e
                   WHERE e.job_id = j.job_id ORDER BY e.start_time DESC LIMIT 1) END AS last_error,
               j.next_start, format('CALL public.run_job(%s)', j.job_id) AS statement,
               CASE WHEN NOT j.scheduled THEN 'off'
                    WHEN s.consecutive_failures > 0 THEN 'failing'
                    -- While it runs it has no next start, and it is late when it takes longer than its interval.
                    WHEN now() > coalesce(nullif(s.next_start, '-infinity'), s.last_start, i.installed) + j.schedule_interval
                        THEN 'overdue'
                    ELSE 'ok' END AS state
        FROM timescaledb_information.jobs j
        LEFT JOIN _timescaledb_internal.bgw_job_stat s USING (job_id)
        CROSS JOIN linkbeat.installation i
        WHERE j.hypertable_schema IS NOT NULL OR j.proc_schema = 'linkbeat'
    ) p
    LEFT JOIN linkbeat.maintenance m ON m.job = p.job
)
SELECT job, every, last_success, last_failure, consecutive_failures, next_start, last_error, state, statement,
       is_the_services AND (last_start IS NULL OR last_start + every <= clock_timestamp()) AS is_due
FROM job;

COMMENT ON VIEW linkbeat.jobs IS 'Background jobs and their state: ok, failing, overdue, taken over by the service, or off.';
