-- configure: the settings that the database itself works by; called by `migrate`.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE FUNCTION linkbeat.configured(of_setting text) RETURNS interval LANGUAGE plpgsql STABLE AS $$
DECLARE
    found double precision;
BEGIN
    SELECT days INTO STRICT found FROM linkbeat.configuration WHERE setting = of_setting;
    RETURN make_interval(secs => found * 86400);
END $$;

-- `settings`: {"retain_raw_days": 14, …}, checked by the service (service/settings.py). What is so already stays.
CREATE OR REPLACE FUNCTION linkbeat.configure(settings jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF settings = (SELECT jsonb_object_agg(setting, days) FROM linkbeat.configuration) THEN
        RETURN;
    END IF;
    DELETE FROM linkbeat.configuration;
    INSERT INTO linkbeat.configuration (setting, days) SELECT key, value::double precision FROM jsonb_each_text(settings);
    PERFORM linkbeat.apply_configuration();
END $$;
