-- Add field xattrs to job
ALTER TABLE "jobs" DROP COLUMN "xattrs" CASCADE;
--;;
-- Add field symlinks to job
ALTER TABLE "jobs" DROP COLUMN "symlinks" CASCADE;
--;;
-- Add field special_bits to job
ALTER TABLE "jobs" DROP COLUMN "special_bits" CASCADE;
--;;
-- Add field options_version to job
ALTER TABLE "jobs" DROP COLUMN "options_version" CASCADE;
--;;
-- Add field hard_links to job
ALTER TABLE "jobs" DROP COLUMN "hard_links" CASCADE;
--;;
-- Add field checksum to job
ALTER TABLE "jobs" DROP COLUMN "checksum" CASCADE;
