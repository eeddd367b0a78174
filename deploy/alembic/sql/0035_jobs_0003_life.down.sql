-- Create constraint job_bandwidth_not_negative on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_bandwidth_not_negative";
--;;
-- Create constraint job_timed_has_time on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_timed_has_time";
--;;
-- Create constraint job_status_known on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_status_known";
--;;
-- Create index job_timed on field(s) next_run_at of model job
DROP INDEX IF EXISTS "job_timed";
--;;
-- Create index job_turn on field(s) -priority, created_at of model job
DROP INDEX IF EXISTS "job_turn";
--;;
-- Alter field status on job
-- (no-op)
-- Add field waits_for to job
ALTER TABLE "jobs" DROP COLUMN "waits_for" CASCADE;
--;;
-- Add field tries to job
ALTER TABLE "jobs" DROP COLUMN "tries" CASCADE;
--;;
-- Add field priority to job
ALTER TABLE "jobs" DROP COLUMN "priority" CASCADE;
--;;
-- Add field pause_requested_at to job
ALTER TABLE "jobs" DROP COLUMN "pause_requested_at" CASCADE;
--;;
-- Add field next_run_at to job
ALTER TABLE "jobs" DROP COLUMN "next_run_at" CASCADE;
--;;
-- Add field max_tries to job
ALTER TABLE "jobs" DROP COLUMN "max_tries" CASCADE;
--;;
-- Add field losses to job
ALTER TABLE "jobs" DROP COLUMN "losses" CASCADE;
--;;
-- Add field frozen to job
ALTER TABLE "jobs" DROP COLUMN "frozen" CASCADE;
--;;
-- Add field bandwidth_limit to job
ALTER TABLE "jobs" DROP COLUMN "bandwidth_limit" CASCADE;
--;;
-- Remove constraint job_status_known from model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_status_known" CHECK ("status" IN ('queued', 'running', 'done', 'partial', 'failed', 'cancelled'));
