-- Alter field salt on authtoken
-- (no-op)
-- Alter field digest on authtoken
ALTER TABLE "knox_authtoken" ALTER COLUMN "digest" TYPE varchar(64);
