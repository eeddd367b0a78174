-- Alter field real_root on portal
ALTER TABLE "portals" ALTER COLUMN "real_root" DROP DEFAULT;
