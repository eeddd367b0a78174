-- Create constraint portal_machine_plain on model portal
ALTER TABLE "portals" DROP CONSTRAINT "portal_machine_plain";
--;;
-- Create constraint portal_machine_only_local on model portal
ALTER TABLE "portals" DROP CONSTRAINT "portal_machine_only_local";
--;;
-- Add field machine to portal
ALTER TABLE "portals" DROP COLUMN "machine" CASCADE;
--;;
-- Add field former_machines to portal
ALTER TABLE "portals" DROP COLUMN "former_machines" CASCADE;
--;;
-- Create model Machine
DROP TABLE "machines" CASCADE;
