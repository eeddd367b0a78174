-- Create model AuthToken
DROP TABLE "knox_authtoken" CASCADE;
