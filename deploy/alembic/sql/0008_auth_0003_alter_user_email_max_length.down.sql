-- Alter field email on user
ALTER TABLE "auth_user" ALTER COLUMN "email" TYPE varchar(75);
