-- Add field token_key to authtoken
ALTER TABLE "knox_authtoken" ADD COLUMN "token_key" varchar(8) NULL;
--;;
CREATE INDEX "knox_authtoken_token_key_8f4f7d47" ON "knox_authtoken" ("token_key");
--;;
CREATE INDEX "knox_authtoken_token_key_8f4f7d47_like" ON "knox_authtoken" ("token_key" varchar_pattern_ops);
