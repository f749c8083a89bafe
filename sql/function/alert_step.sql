-- alert_step: the state machine of alerts, one judgement further. A turn and a backtest both run it over the same points,
-- so that a rule does what its backtest said. Replaceable: reapplied on every upgrade.
--
--   watched ──is_true──► pending ──for──► firing ──is_clear for `keep`──► watched (resolved: fired_at stays set until the
--      ▲──────not true──────┘                 next pending, which tells the caller)
--
-- Time is the data's own. A point that cannot tell (is_true is null) and a time without points longer than `step` stop
-- both clocks: what nobody saw neither fires nor resolves.
CREATE OR REPLACE FUNCTION linkbeat.alert_step(
    st linkbeat.alerts, p linkbeat.alert_point, for_ms double precision, keep_ms double precision
) RETURNS linkbeat.alerts LANGUAGE plpgsql AS $$
DECLARE
    passed_ms double precision := 0;
BEGIN
    IF p.at <= st.seen_at THEN
        RETURN st;
    END IF;
    IF p.at <= st.seen_at + p.step THEN
        passed_ms := extract(epoch FROM p.at - st.seen_at) * 1000;
    END IF;
    st.seen_at := p.at;
    st.step := p.step;
    st.held := p.is_true IS NULL;
    IF st.held THEN
        RETURN st;
    END IF;
    st.value := p.value;
    IF st.state = 'watched' THEN
        IF NOT p.is_true THEN
            RETURN st;
        END IF;
        st.state := 'pending';
        st.active_at := greatest(coalesce(p.active_at, p.at), st.cleared_at);
        st.fired_at := NULL;
        st.cleared_at := NULL;
        st.counted_ms := 0;
        st.peak := NULL;
        st.episode := gen_random_uuid();
        st.sequence := 0;
        st.told_at := NULL;
        st.acknowledged_at := NULL;
        st.acknowledged_by := NULL;
    ELSIF st.state = 'pending' THEN
        IF NOT p.is_true THEN
            st.state := 'watched';
            RETURN st;
        END IF;
        st.counted_ms := st.counted_ms + passed_ms;
    ELSIF p.is_clear THEN
        st.counted_ms := CASE WHEN st.cleared_at IS NULL THEN 0 ELSE st.counted_ms + passed_ms END;
        st.cleared_at := coalesce(st.cleared_at, p.at);
        IF st.counted_ms >= keep_ms THEN
            st.state := 'watched';
        END IF;
        RETURN st;
    ELSE
        st.cleared_at := NULL;
        st.counted_ms := 0;
    END IF;
    st.peak := CASE WHEN p.is_low THEN least(st.peak, p.value) ELSE greatest(st.peak, p.value) END;
    IF p.is_true THEN
        st.reason := p.reason;
    END IF;
    IF st.state = 'pending' AND st.counted_ms >= for_ms THEN
        st.state := 'firing';
        st.fired_at := p.at;
        st.counted_ms := 0;
    END IF;
    RETURN st;
END $$;

-- A subject of which nothing is known before `since`.
CREATE OR REPLACE FUNCTION linkbeat.alert_start(of_rule text, of_server text, of_subject text, since timestamptz)
RETURNS linkbeat.alerts LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    st linkbeat.alerts;
BEGIN
    st.rule_id := of_rule;
    st.server_id := of_server;
    st.subject := of_subject;
    st.state := 'watched';
    st.seen_at := since;
    st.step := INTERVAL '0';
    st.counted_ms := 0;
    st.held := false;
    st.sequence := 0;
    RETURN st;
END $$;
