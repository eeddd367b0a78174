-- Remove field salt from authtoken
ALTER TABLE "knox_authtoken" ADD COLUMN "salt" varchar(16) NOT NULL UNIQUE;
--;;
CREATE INDEX "knox_authtoken_salt_3d9f48ac_like" ON "knox_authtoken" ("salt" varchar_pattern_ops);
