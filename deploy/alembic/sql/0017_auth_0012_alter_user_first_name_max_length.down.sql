-- Alter field first_name on user
ALTER TABLE "auth_user" ALTER COLUMN "first_name" TYPE varchar(30);
