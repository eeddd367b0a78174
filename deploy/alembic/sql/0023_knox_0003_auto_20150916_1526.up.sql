-- Alter field digest on authtoken
ALTER TABLE "knox_authtoken" ALTER COLUMN "digest" TYPE varchar(128);
--;;
-- Alter field salt on authtoken
-- (no-op)
