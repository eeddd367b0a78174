-- Add field bandwidth_limit to portal
ALTER TABLE "portals" ADD COLUMN "bandwidth_limit" bigint DEFAULT 0 NOT NULL;
--;;
ALTER TABLE "portals" ALTER COLUMN "bandwidth_limit" DROP DEFAULT;
--;;
-- Add field max_jobs to portal
ALTER TABLE "portals" ADD COLUMN "max_jobs" smallint DEFAULT 0 NOT NULL CHECK ("max_jobs" >= 0);
--;;
ALTER TABLE "portals" ALTER COLUMN "max_jobs" DROP DEFAULT;
--;;
-- Create constraint portal_bandwidth_not_negative on model portal
ALTER TABLE "portals" ADD CONSTRAINT "portal_bandwidth_not_negative" CHECK ("bandwidth_limit" >= 0);
