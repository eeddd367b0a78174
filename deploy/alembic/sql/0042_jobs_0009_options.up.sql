-- Add field checksum to job
ALTER TABLE "jobs" ADD COLUMN "checksum" boolean DEFAULT false NOT NULL;
--;;
-- Add field hard_links to job
ALTER TABLE "jobs" ADD COLUMN "hard_links" varchar(8) DEFAULT 'copy' NOT NULL;
--;;
-- Add field options_version to job
ALTER TABLE "jobs" ADD COLUMN "options_version" smallint DEFAULT 1 NOT NULL CHECK ("options_version" >= 0);
--;;
-- Add field special_bits to job
ALTER TABLE "jobs" ADD COLUMN "special_bits" boolean DEFAULT false NOT NULL;
--;;
-- Add field symlinks to job
ALTER TABLE "jobs" ADD COLUMN "symlinks" varchar(8) DEFAULT 'keep' NOT NULL;
--;;
-- Add field xattrs to job
ALTER TABLE "jobs" ADD COLUMN "xattrs" boolean DEFAULT false NOT NULL;
