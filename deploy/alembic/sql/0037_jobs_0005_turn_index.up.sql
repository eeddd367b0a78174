-- Remove index job_turn from job
DROP INDEX IF EXISTS "job_turn";
--;;
-- Create index job_turn on field(s) cancel_requested_at, -priority, created_at, id of model job
CREATE INDEX "job_turn" ON "jobs" ("cancel_requested_at", "priority" DESC, "created_at", "id") WHERE "status" = 'queued';
