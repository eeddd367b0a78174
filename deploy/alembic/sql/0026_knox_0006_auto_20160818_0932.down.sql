-- Alter field token_key on authtoken
ALTER TABLE "knox_authtoken" ALTER COLUMN "token_key" DROP NOT NULL;
--;;
-- Raw Python operation
