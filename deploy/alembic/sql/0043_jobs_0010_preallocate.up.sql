-- Add field preallocate to job
ALTER TABLE "jobs" ADD COLUMN "preallocate" boolean DEFAULT false NOT NULL;
