-- Add field expires to authtoken
ALTER TABLE "knox_authtoken" DROP COLUMN "expires" CASCADE;
