-- Add field root_confirmed_at to portal
ALTER TABLE "portals" DROP COLUMN "root_confirmed_at" CASCADE;
--;;
-- Add field real_root to portal
ALTER TABLE "portals" DROP COLUMN "real_root" CASCADE;
