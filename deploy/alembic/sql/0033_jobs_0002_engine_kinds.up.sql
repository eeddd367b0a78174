-- Remove constraint job_streams_range from model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_streams_range";
--;;
-- Remove constraint parcel_kind_known from model jobparcel
ALTER TABLE "job_parcels" DROP CONSTRAINT "parcel_kind_known";
--;;
-- Alter field on_conflict on job
-- (no-op)
-- Alter field strategy on job
-- (no-op)
-- Alter field streams on job
-- (no-op)
-- Alter field kind on jobparcel
-- (no-op)
-- Create constraint job_streams_range on model job
ALTER TABLE "jobs" ADD CONSTRAINT "job_streams_range" CHECK (("streams" >= 0 AND "streams" <= 32));
--;;
-- Create constraint parcel_kind_known on model jobparcel
ALTER TABLE "job_parcels" ADD CONSTRAINT "parcel_kind_known" CHECK ("kind" IN ('zip', 'file', 'range', 'archive'));
