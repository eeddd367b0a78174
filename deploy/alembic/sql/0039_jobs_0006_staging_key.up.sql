-- Add field staging_key to job
ALTER TABLE "jobs" ADD COLUMN "staging_key" varchar(16) DEFAULT '' NOT NULL;
--;;
ALTER TABLE "jobs" ALTER COLUMN "staging_key" DROP DEFAULT;
--;;
-- Alter field staging_key on job
-- (no-op)
