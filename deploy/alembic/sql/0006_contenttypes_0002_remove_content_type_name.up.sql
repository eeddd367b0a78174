-- Change Meta options on contenttype
-- (no-op)
-- Alter field name on contenttype
ALTER TABLE "django_content_type" ALTER COLUMN "name" DROP NOT NULL;
--;;
-- Raw Python operation
-- Remove field name from contenttype
ALTER TABLE "django_content_type" DROP COLUMN "name" CASCADE;
