-- Create model Portal
DROP TABLE "portals" CASCADE;
--;;
-- Create model Credential
DROP TABLE "credentials" CASCADE;
