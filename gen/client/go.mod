module caracal.run/management/gen/client

go 1.26.0
