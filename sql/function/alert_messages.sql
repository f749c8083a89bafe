-- The outbox as those who deliver see it: claim_messages, message_delivered, message_failed. At least once, with an id that
-- stays: a process that dies between the receiver's answer and message_delivered leaves a lease that runs out.
-- Replaceable: reapplied on every upgrade.

-- How long a claimed message belongs to its claimer.
CREATE OR REPLACE FUNCTION linkbeat.message_lease() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN INTERVAL '60 seconds';

-- What is sent: the fields of the most severe alert, and, where there are more, up to 20 of them and their number; 16 KiB at
-- most. `state` is firing, resolved or closed; `was_untold`: it had ended before anybody could be told that it fired.
CREATE OR REPLACE FUNCTION linkbeat.message_payload(of_message uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    shown   jsonb[];
    counts  jsonb;
    total   integer;
    payload jsonb;
BEGIN
    SELECT count(*), array_agg(i.shown ORDER BY i.rank DESC, i.place, i.shown ->> 'server_id', i.shown ->> 'subject', i.shown ->> 'id')
    INTO total, shown
    FROM (
        SELECT linkbeat.severity_rank(alert ->> 'severity') AS rank, CASE WHEN transition IN ('firing', 'flapping', 'repeated') THEN 0 ELSE 1 END AS place,
               alert || CASE transition
                   WHEN 'flapping' THEN '{"is_flapping": true}' WHEN 'repeated' THEN '{"is_repeated": true}'
                   WHEN 'over' THEN '{"was_untold": true}' WHEN 'late' THEN '{"is_late": true}' ELSE '{}' END::jsonb AS shown
        FROM linkbeat.outbox_items WHERE message_id = of_message
    ) i;
    SELECT jsonb_object_agg(state, n) INTO counts
    FROM (SELECT s ->> 'state' AS state, count(*) AS n FROM unnest(shown) AS s GROUP BY 1) c;
    shown := ARRAY(SELECT linkbeat.with_note(s) FROM unnest(shown[1:20]) WITH ORDINALITY AS n(s, place) ORDER BY place);
    FOR named IN REVERSE 20 .. 0 LOOP
        IF named = 0 THEN
            -- A long note of characters that JSON writes in six bytes.
            shown[1] := shown[1] || '{"note": null}';
        END IF;
        payload := shown[1] || jsonb_build_object('message_id', of_message, 'count', total);
        IF total > 1 THEN
            -- A message of many has an id of its own: which alerts it names does not change it.
            payload := payload || jsonb_build_object('id', of_message, 'counts', counts, 'alerts', to_jsonb(shown[1:greatest(named, 1)]));
        END IF;
        EXIT WHEN octet_length(payload::text) <= 16384;
    END LOOP;
    RETURN payload;
END $$;

-- An end that would follow a firing which nobody was told of yet: both become one message, with both times. The firing's
-- message gets another id if somebody may have received it as it was. Under the channel's lock.
CREATE OR REPLACE FUNCTION linkbeat.merge_messages(of_channel text, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    pair record;
    kept uuid;
BEGIN
    FOR pair IN
        SELECT DISTINCT ON (f.message_id, f.episode) f.message_id AS first, f.sequence, o.attempts, r.message_id AS last,
               r.episode, r.sequence AS last_sequence, r.alert
        FROM linkbeat.outbox o
        JOIN linkbeat.outbox_items f ON f.message_id = o.message_id AND f.transition IN ('firing', 'flapping', 'repeated')
        JOIN linkbeat.outbox_items r ON r.episode = f.episode AND r.sequence > f.sequence AND r.transition IN ('resolved', 'closed')
        JOIN linkbeat.outbox n ON n.message_id = r.message_id AND n.channel_id = o.channel_id
        WHERE o.channel_id = of_channel AND o.delivered_at IS NULL AND o.dead_at IS NULL AND n.delivered_at IS NULL AND n.dead_at IS NULL
          AND coalesce(o.lease_until, '-infinity') <= merge_messages.at AND coalesce(n.lease_until, '-infinity') <= merge_messages.at
          -- Of a repetition the firing was told: its end is news.
          AND NOT EXISTS (SELECT FROM linkbeat.outbox_items b JOIN linkbeat.outbox d USING (message_id)
                          WHERE b.episode = f.episode AND b.sequence < f.sequence AND d.channel_id = o.channel_id AND d.delivered_at IS NOT NULL)
        ORDER BY f.message_id, f.episode, f.sequence
    LOOP
        kept := pair.first;
        DELETE FROM linkbeat.outbox_items i USING linkbeat.outbox o
        WHERE o.message_id = i.message_id AND o.channel_id = of_channel AND o.delivered_at IS NULL AND o.dead_at IS NULL
          AND i.episode = pair.episode AND (i.message_id, i.sequence) <> (pair.first, pair.sequence);
        UPDATE linkbeat.outbox_items i SET transition = 'over', sequence = pair.last_sequence, alert = pair.alert
        WHERE (i.message_id, i.episode, i.sequence) = (pair.first, pair.episode, pair.sequence);
        UPDATE linkbeat.outbox o SET payload = NULL WHERE o.message_id = kept;
    END LOOP;
    -- What was attempted and has changed is another message; it keeps its age, and its place in the order.
    FOR pair IN
        SELECT o.* FROM linkbeat.outbox o
        WHERE o.channel_id = of_channel AND o.kind = 'alerts' AND o.attempts > 0 AND o.payload IS NULL AND o.delivered_at IS NULL AND o.dead_at IS NULL
    LOOP
        INSERT INTO linkbeat.outbox (channel_id, kind, created_at, next_attempt_at, attempts, last_status, last_error, payload)
        VALUES (pair.channel_id, pair.kind, pair.created_at, pair.next_attempt_at, pair.attempts, pair.last_status, pair.last_error, NULL)
        RETURNING message_id INTO kept;
        UPDATE linkbeat.outbox_items SET message_id = kept WHERE message_id = pair.message_id;
        DELETE FROM linkbeat.outbox WHERE message_id = pair.message_id;
        UPDATE linkbeat.outbox SET payload = linkbeat.message_payload(kept) WHERE message_id = kept;
    END LOOP;
    DELETE FROM linkbeat.outbox o
    WHERE o.channel_id = of_channel AND o.kind = 'alerts' AND o.delivered_at IS NULL AND o.dead_at IS NULL
      AND coalesce(o.lease_until, '-infinity') <= merge_messages.at
      AND NOT EXISTS (SELECT FROM linkbeat.outbox_items i WHERE i.message_id = o.message_id);
END $$;

-- Messages that are due, the oldest first; they belong to the caller for a minute. A channel that another process is just
-- claiming of is passed over. Of an episode, nothing is claimed while something earlier of it waits in the same channel.
CREATE OR REPLACE FUNCTION linkbeat.claim_messages(at_most integer DEFAULT 8, at timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (
    message_id uuid, channel_id text, channel_kind text, channel_spec jsonb, secret bytea, time_zone text, kind text,
    payload jsonb, attempts integer
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    channel record;
    claimed uuid[];
    wanted  integer := at_most;
BEGIN
    FOR channel IN
        SELECT c.channel_id, c.kind, c.spec, c.secret, c.time_zone
        FROM linkbeat.alert_channels c
        WHERE EXISTS (SELECT FROM linkbeat.outbox o WHERE o.channel_id = c.channel_id AND o.delivered_at IS NULL AND o.dead_at IS NULL
                      AND o.next_attempt_at <= claim_messages.at AND coalesce(o.lease_until, '-infinity') <= claim_messages.at)
        ORDER BY c.channel_id FOR NO KEY UPDATE OF c SKIP LOCKED
    LOOP
        EXIT WHEN wanted <= 0;
        PERFORM linkbeat.merge_messages(channel.channel_id, claim_messages.at);
        claimed := ARRAY(
            SELECT o.message_id FROM linkbeat.outbox o
            WHERE o.channel_id = channel.channel_id AND o.delivered_at IS NULL AND o.dead_at IS NULL
              AND o.next_attempt_at <= claim_messages.at AND coalesce(o.lease_until, '-infinity') <= claim_messages.at
              AND NOT EXISTS (
                  SELECT FROM linkbeat.outbox_items i
                  JOIN linkbeat.outbox_items e ON e.episode = i.episode AND e.sequence < i.sequence
                  JOIN linkbeat.outbox w ON w.message_id = e.message_id
                  WHERE i.message_id = o.message_id AND w.message_id <> o.message_id AND w.channel_id = o.channel_id
                    AND w.delivered_at IS NULL AND w.dead_at IS NULL)
            ORDER BY o.created_at LIMIT wanted FOR UPDATE SKIP LOCKED);
        wanted := wanted - cardinality(claimed);
        RETURN QUERY
        UPDATE linkbeat.outbox o SET
            lease_until = claim_messages.at + linkbeat.message_lease(), attempts = o.attempts + 1,
            payload = coalesce(o.payload, linkbeat.message_payload(o.message_id))
        WHERE o.message_id = ANY (claimed)
        RETURNING o.message_id, o.channel_id, channel.kind, channel.spec, channel.secret, channel.time_zone, o.kind, o.payload, o.attempts;
    END LOOP;
END $$;

-- False where it was delivered, given up or replaced meanwhile.
CREATE OR REPLACE FUNCTION linkbeat.message_delivered(of_message uuid, status integer, at timestamptz DEFAULT clock_timestamp())
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE linkbeat.outbox SET delivered_at = message_delivered.at, lease_until = NULL, last_status = status, last_error = NULL
    WHERE message_id = of_message AND delivered_at IS NULL;
    RETURN FOUND;
END $$;

-- Whether another attempt can be of use: not after three answers that say that the request is wrong, nor after 72 hours.
CREATE OR REPLACE FUNCTION linkbeat.is_dead(status integer, attempts integer, created_at timestamptz, at timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN at >= created_at + INTERVAL '72 hours'
    OR coalesce(status BETWEEN 400 AND 499 AND status NOT IN (408, 425, 429), false) AND attempts >= 3;

-- Sets the next attempt: 5 seconds after the first, twice as long after each, 15 minutes at most; half of that is drawn, so
-- that channels of one receiver do not come together, and half is not, so that an hour takes fifteen attempts at most. Or
-- gives the message up, which another channel is told of. Returns when the next attempt is due; null: it was given up.
--   retry_after  seconds that the receiver asks for
CREATE OR REPLACE FUNCTION linkbeat.message_failed(
    of_message uuid, status integer, error text, retry_after double precision DEFAULT NULL, at timestamptz DEFAULT clock_timestamp()
) RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    message linkbeat.outbox;
    seconds double precision;
BEGIN
    SELECT * INTO message FROM linkbeat.outbox
    WHERE message_id = of_message AND delivered_at IS NULL AND dead_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    seconds := least(5 * 2 ^ least(message.attempts - 1, 20), 900);
    seconds := greatest(seconds / 2 * (1 + random()), least(coalesce(retry_after, 0), 86400));
    UPDATE linkbeat.outbox SET
        lease_until = NULL, last_status = status, last_error = left(error, 500),
        next_attempt_at = message_failed.at + seconds * INTERVAL '1 second',
        dead_at = CASE WHEN linkbeat.is_dead(status, message.attempts, message.created_at, message_failed.at) THEN message_failed.at END
    WHERE message_id = of_message
    RETURNING * INTO message;
    IF message.dead_at IS NULL THEN
        RETURN message.next_attempt_at;
    END IF;
    -- Not of a message that itself says this: two channels that are both away would tell each other for ever.
    IF message.kind NOT IN ('dead_letter', 'test') THEN
        INSERT INTO linkbeat.outbox (channel_id, kind, payload, created_at, next_attempt_at)
        SELECT c.channel_id, 'dead_letter',
               jsonb_build_object('id', message.message_id, 'state', 'undelivered', 'rule', message.payload -> 'rule',
                                  'severity', 'warning', 'server_id', message.payload -> 'server_id', 'subject', message.payload -> 'subject',
                                  'value', NULL, 'since', message.created_at,
                                  'reason', format('channel %s did not take a message in %s attempts: %s', message.channel_id,
                                                   message.attempts, coalesce(left(error, 200), status::text)),
                                  'undelivered', message.payload),
               message_failed.at, message_failed.at
        FROM linkbeat.alert_channels c
        WHERE c.enabled AND c.channel_id <> message.channel_id
          -- One that works, if any does.
        ORDER BY (SELECT max(o.delivered_at) FROM linkbeat.outbox o WHERE o.channel_id = c.channel_id) DESC NULLS LAST, c.channel_id
        LIMIT 1;
    END IF;
    RETURN NULL;
END $$;
