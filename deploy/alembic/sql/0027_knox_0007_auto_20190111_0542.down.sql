-- Rename field expires on authtoken to expiry
ALTER TABLE "knox_authtoken" RENAME COLUMN "expiry" TO "expires";
