-- Families of aggregates that gain columns after they were created (linkbeat.create_family).
-- Structure: run once, frozen on release.

ALTER TABLE linkbeat.family_columns ADD COLUMN of_older text;

COMMENT ON COLUMN linkbeat.family_columns.of_older IS 'What a bucket holds that was finished before the column was there; null: null.';

-- The finished buckets of an aggregate stand in one relation, or in several of different columns.
ALTER TABLE linkbeat.kept
    ADD COLUMN part  integer NOT NULL DEFAULT 1,
    ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity',
    DROP CONSTRAINT kept_pkey,
    ADD PRIMARY KEY (relation, part);

COMMENT ON COLUMN linkbeat.kept.part IS '1: made with the aggregate. 2 and up: of columns that came later, where the edition cannot add them to part 1.';
COMMENT ON COLUMN linkbeat.kept.since IS 'The aggregate''s watermark when the part was made: buckets that were finished then may have no row in it.';
