-- Alter field staging_key on job
ALTER TABLE "jobs" ALTER COLUMN "staging_key" SET DEFAULT '';
