-- Create model AuthToken
CREATE TABLE "knox_authtoken" ("key" varchar(64) NOT NULL PRIMARY KEY, "created" timestamp with time zone NOT NULL, "user_id" integer NOT NULL);
--;;
ALTER TABLE "knox_authtoken" ADD CONSTRAINT "knox_authtoken_user_id_e5a5d899_fk_auth_user_id" FOREIGN KEY ("user_id") REFERENCES "auth_user" ("id") DEFERRABLE INITIALLY DEFERRED;
--;;
CREATE INDEX "knox_authtoken_key_f534ac0f_like" ON "knox_authtoken" ("key" varchar_pattern_ops);
--;;
CREATE INDEX "knox_authtoken_user_id_e5a5d899" ON "knox_authtoken" ("user_id");
