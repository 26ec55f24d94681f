#!/bin/sh
# Makes the secrets of docker-compose.yml, once: what is there stays. Runs in the program's own image.
set -eu
settings=/settings/settings.env
[ ! -e "$settings" ] || exit 0

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

password=$(random)
# PostgreSQL's image reads it under an account of its own.
printf '%s' "$password" >/settings/postgres-password

umask 077
{
    whitemonday keys generate
    echo "DATABASE_URL=postgres://whitemonday:$password@postgres:5432/whitemonday"
    echo "PAYMENT_WEBHOOK_SECRET=whsec_$(random)"
} >"$settings.new"
mv "$settings.new" "$settings"
echo "Made keys and passwords."
