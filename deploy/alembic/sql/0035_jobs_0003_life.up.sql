-- Remove constraint job_status_known from model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_status_known";
--;;
-- Add field bandwidth_limit to job
ALTER TABLE "jobs" ADD COLUMN "bandwidth_limit" bigint DEFAULT 0 NOT NULL;
--;;
ALTER TABLE "jobs" ALTER COLUMN "bandwidth_limit" DROP DEFAULT;
--;;
-- Add field frozen to job
ALTER TABLE "jobs" ADD COLUMN "frozen" jsonb NULL;
--;;
-- Add field losses to job
ALTER TABLE "jobs" ADD COLUMN "losses" integer DEFAULT 0 NOT NULL CHECK ("losses" >= 0);
--;;
ALTER TABLE "jobs" ALTER COLUMN "losses" DROP DEFAULT;
--;;
-- Add field max_tries to job
ALTER TABLE "jobs" ADD COLUMN "max_tries" smallint DEFAULT 50 NOT NULL CHECK ("max_tries" >= 0);
--;;
ALTER TABLE "jobs" ALTER COLUMN "max_tries" DROP DEFAULT;
--;;
-- Add field next_run_at to job
ALTER TABLE "jobs" ADD COLUMN "next_run_at" timestamp with time zone NULL;
--;;
-- Add field pause_requested_at to job
ALTER TABLE "jobs" ADD COLUMN "pause_requested_at" timestamp with time zone NULL;
--;;
-- Add field priority to job
ALTER TABLE "jobs" ADD COLUMN "priority" smallint DEFAULT 0 NOT NULL;
--;;
ALTER TABLE "jobs" ALTER COLUMN "priority" DROP DEFAULT;
--;;
-- Add field tries to job
ALTER TABLE "jobs" ADD COLUMN "tries" integer DEFAULT 0 NOT NULL CHECK ("tries" >= 0);
--;;
ALTER TABLE "jobs" ALTER COLUMN "tries" DROP DEFAULT;
--;;
-- Add field waits_for to job
ALTER TABLE "jobs" ADD COLUMN "waits_for" text DEFAULT '' NOT NULL;
--;;
ALTER TABLE "jobs" ALTER COLUMN "waits_for" DROP DEFAULT;
--;;
-- Alter field status on job
-- (no-op)
-- Create index job_turn on field(s) -priority, created_at of model job
CREATE INDEX "job_turn" ON "jobs" ("priority" DESC, "created_at") WHERE "status" = 'queued';
--;;
-- Create index job_timed on field(s) next_run_at of model job
CREATE INDEX "job_timed" ON "jobs" ("next_run_at") WHERE "status" IN ('scheduled', 'retry_wait');
--;;
-- Create constraint job_status_known on model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_status_known" CHECK ("status" IN ('draft', 'scheduled', 'queued', 'running', 'retry_wait', 'paused', 'needs_attention', 'done', 'partial', 'failed', 'cancelled'));
--;;
-- Create constraint job_timed_has_time on model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_timed_has_time" CHECK ((NOT ("status" IN ('scheduled', 'retry_wait')) OR "next_run_at" IS NOT NULL));
--;;
-- Create constraint job_bandwidth_not_negative on model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_bandwidth_not_negative" CHECK ("bandwidth_limit" >= 0);
