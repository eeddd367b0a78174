-- Add field clearing_until to job
ALTER TABLE "jobs" ADD COLUMN "clearing_until" timestamp with time zone NULL;
--;;
-- Add field clearings to job
ALTER TABLE "jobs" ADD COLUMN "clearings" smallint DEFAULT 0 NOT NULL CHECK ("clearings" >= 0);
--;;
-- Create index job_clearing on field(s) clearing_until of model job
CREATE INDEX "job_clearing" ON "jobs" ("clearing_until") WHERE "clearing_until" IS NOT NULL;
