-- Add field preallocate to job
ALTER TABLE "jobs" DROP COLUMN "preallocate" CASCADE;
