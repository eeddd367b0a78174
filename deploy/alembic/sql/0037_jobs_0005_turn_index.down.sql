-- Create index job_turn on field(s) cancel_requested_at, -priority, created_at, id of model job
DROP INDEX IF EXISTS "job_turn";
--;;
-- Remove index job_turn from job
CREATE INDEX "job_turn" ON "jobs" ("priority" DESC, "created_at") WHERE "status" = 'queued';
