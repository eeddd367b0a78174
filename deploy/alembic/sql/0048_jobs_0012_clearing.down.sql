-- Create index job_clearing on field(s) clearing_until of model job
DROP INDEX IF EXISTS "job_clearing";
--;;
-- Add field clearings to job
ALTER TABLE "jobs" DROP COLUMN "clearings" CASCADE;
--;;
-- Add field clearing_until to job
ALTER TABLE "jobs" DROP COLUMN "clearing_until" CASCADE;
