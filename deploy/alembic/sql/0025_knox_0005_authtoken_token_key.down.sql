-- Add field token_key to authtoken
ALTER TABLE "knox_authtoken" DROP COLUMN "token_key" CASCADE;
