-- Remove constraint portal_machine_only_local from model portal
ALTER TABLE "portals" DROP CONSTRAINT "portal_machine_only_local";
--;;
-- Create constraint portal_machine_only_local on model portal
ALTER TABLE "portals" ADD CONSTRAINT "portal_machine_only_local" CHECK (("kind" = 'local' OR "machine" = ''));
