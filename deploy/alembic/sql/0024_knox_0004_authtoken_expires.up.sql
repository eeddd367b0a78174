-- Add field expires to authtoken
ALTER TABLE "knox_authtoken" ADD COLUMN "expires" timestamp with time zone NULL;
