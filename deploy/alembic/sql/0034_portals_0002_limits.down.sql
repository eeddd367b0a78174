-- Create constraint portal_bandwidth_not_negative on model portal
ALTER TABLE "portals" DROP CONSTRAINT "portal_bandwidth_not_negative";
--;;
-- Add field max_jobs to portal
ALTER TABLE "portals" DROP COLUMN "max_jobs" CASCADE;
--;;
-- Add field bandwidth_limit to portal
ALTER TABLE "portals" DROP COLUMN "bandwidth_limit" CASCADE;
