-- Create constraint parcel_kind_known on model jobparcel
ALTER TABLE "job_parcels" DROP CONSTRAINT "parcel_kind_known";
--;;
-- Create constraint job_streams_range on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_streams_range";
--;;
-- Alter field kind on jobparcel
-- (no-op)
-- Alter field streams on job
-- (no-op)
-- Alter field strategy on job
-- (no-op)
-- Alter field on_conflict on job
-- (no-op)
-- Remove constraint parcel_kind_known from model jobparcel
ALTER TABLE "job_parcels" ADD CONSTRAINT "parcel_kind_known" CHECK ("kind" IN ('zip', 'file'));
--;;
-- Remove constraint job_streams_range from model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_streams_range" CHECK (("streams" >= 1 AND "streams" <= 32));
