#!/bin/sh
# Build a stand-in for the public images that k2d is made of and runs with, out of Debian packages: Python, Redis,
# Prometheus. For machines that reach a package mirror and no image registry. Needs root and debootstrap.
#   stand_in.sh            tags k2d-test/python, k2d-test/redis, k2d-test/prometheus; one minute
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,redis-server,prometheus \
    bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/*
# the public image calls it `python`
ln -s /usr/bin/python3 "$root/usr/local/bin/python"
# a mirror behind this machine's own certificate authority is reached as this machine reaches it
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
fi
# the data folders and their owners, as the public images have them
install -d -o 999 -g 1000 "$root/data"
install -d -o 65534 -g 65534 "$root/prometheus"

tar -C "$root" -c . | docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin' - k2d-test/redis
docker tag k2d-test/redis k2d-test/python
printf 'FROM k2d-test/redis\nENTRYPOINT ["/usr/bin/prometheus"]\n' | docker build -q -t k2d-test/prometheus -
