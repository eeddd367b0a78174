-- Alter field staging_key on job
-- (no-op)
-- Add field staging_key to job
ALTER TABLE "jobs" DROP COLUMN "staging_key" CASCADE;
