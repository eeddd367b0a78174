-- Add field real_root to portal
ALTER TABLE "portals" ADD COLUMN "real_root" text DEFAULT '' NOT NULL;
--;;
ALTER TABLE "portals" ALTER COLUMN "real_root" DROP DEFAULT;
--;;
-- Add field root_confirmed_at to portal
ALTER TABLE "portals" ADD COLUMN "root_confirmed_at" timestamp with time zone NULL;
