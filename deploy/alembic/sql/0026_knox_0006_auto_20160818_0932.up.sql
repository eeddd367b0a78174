-- Raw Python operation
-- Alter field token_key on authtoken
ALTER TABLE "knox_authtoken" ALTER COLUMN "token_key" SET DEFAULT '';
--;;
UPDATE "knox_authtoken" SET "token_key" = '' WHERE "token_key" IS NULL; SET CONSTRAINTS ALL IMMEDIATE;
--;;
ALTER TABLE "knox_authtoken" ALTER COLUMN "token_key" SET NOT NULL;
--;;
ALTER TABLE "knox_authtoken" ALTER COLUMN "token_key" DROP DEFAULT;
