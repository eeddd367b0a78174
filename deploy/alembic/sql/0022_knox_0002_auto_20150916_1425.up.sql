-- Delete model AuthToken
DROP TABLE "knox_authtoken" CASCADE;
--;;
-- Create model AuthToken
CREATE TABLE "knox_authtoken" ("digest" varchar(64) NOT NULL PRIMARY KEY, "salt" varchar(16) NOT NULL UNIQUE, "created" timestamp with time zone NOT NULL, "user_id" integer NOT NULL);
--;;
ALTER TABLE "knox_authtoken" ADD CONSTRAINT "knox_authtoken_user_id_e5a5d899_fk_auth_user_id" FOREIGN KEY ("user_id") REFERENCES "auth_user" ("id") DEFERRABLE INITIALLY DEFERRED;
--;;
CREATE INDEX "knox_authtoken_digest_188c7e77_like" ON "knox_authtoken" ("digest" varchar_pattern_ops);
--;;
CREATE INDEX "knox_authtoken_salt_3d9f48ac_like" ON "knox_authtoken" ("salt" varchar_pattern_ops);
--;;
CREATE INDEX "knox_authtoken_user_id_e5a5d899" ON "knox_authtoken" ("user_id");
