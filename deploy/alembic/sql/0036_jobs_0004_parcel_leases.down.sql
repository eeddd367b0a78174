-- Create model ParcelLease
DROP TABLE "parcel_leases" CASCADE;
