-- Create constraint parcel_kind_known on model jobparcel
ALTER TABLE "job_parcels" DROP CONSTRAINT "parcel_kind_known";
--;;
-- Create constraint parcel_state_known on model jobparcel
ALTER TABLE "job_parcels" DROP CONSTRAINT "parcel_state_known";
--;;
-- Create constraint parcel_number_once_per_attempt on model jobparcel
ALTER TABLE "job_parcels" DROP CONSTRAINT "parcel_number_once_per_attempt";
--;;
-- Create constraint event_level_known on model jobevent
ALTER TABLE "job_events" DROP CONSTRAINT "event_level_known";
--;;
-- Create constraint event_seq_once_per_job on model jobevent
ALTER TABLE "job_events" DROP CONSTRAINT "event_seq_once_per_job";
--;;
-- Create constraint job_idempotency_key_once_per_user on model job
DROP INDEX IF EXISTS "job_idempotency_key_once_per_user";
--;;
-- Create constraint job_streams_range on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_streams_range";
--;;
-- Create constraint job_running_has_lease on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_running_has_lease";
--;;
-- Create constraint job_places_differ on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_places_differ";
--;;
-- Create constraint job_phase_known on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_phase_known";
--;;
-- Create constraint job_mode_known on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_mode_known";
--;;
-- Create constraint job_status_known on model job
ALTER TABLE "jobs" DROP CONSTRAINT "job_status_known";
--;;
-- Create index job_newest on field(s) -created_at of model job
DROP INDEX IF EXISTS "job_newest";
--;;
-- Create index job_by_status on field(s) status, -created_at of model job
DROP INDEX IF EXISTS "job_by_status";
--;;
-- Create index job_waiting on field(s) queued_at of model job
DROP INDEX IF EXISTS "job_waiting";
--;;
-- Create index job_leases on field(s) lease_until of model job
DROP INDEX IF EXISTS "job_leases";
--;;
-- Create model JobParcel
DROP TABLE "job_parcels" CASCADE;
--;;
-- Create model JobEvent
DROP TABLE "job_events" CASCADE;
--;;
-- Create model Job
DROP TABLE "jobs" CASCADE;
