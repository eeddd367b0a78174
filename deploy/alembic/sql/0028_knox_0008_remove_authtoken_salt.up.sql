-- Remove field salt from authtoken
ALTER TABLE "knox_authtoken" DROP COLUMN "salt" CASCADE;
