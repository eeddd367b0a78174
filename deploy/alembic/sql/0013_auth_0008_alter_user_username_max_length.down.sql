-- Alter field username on user
ALTER TABLE "auth_user" ALTER COLUMN "username" TYPE varchar(30);
