#!/bin/sh
# Compile the pinned requirements from pyproject.toml. Usage: requirements/compile.sh [uv]
set -eu
uv=${1:-uv}
cd "$(dirname "$0")/.."
compile() { # output, then extras
    out=$1
    shift
    "$uv" pip compile pyproject.toml requirements/build.in --universal --python-version 3.11 --quiet \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate --generate-hashes --override requirements/without-torch.in "$@" -o "requirements/$out"
}
# the demo's pins are those of the tests, so that one environment serves both
compile dev.txt --extra api --extra ct2 --extra local --extra torch --extra train --extra export --extra s3 --extra vad --extra grpc --extra sherpa --extra dev
compile demo.txt --extra api --extra ct2 --extra local --extra torch --extra train --constraint requirements/dev.txt
# images: `service` for API and workers, which hold no weights; `server` for the inference servers
compile service.txt --extra api --extra grpc --extra s3 --extra vad --constraint requirements/dev.txt
compile server.txt --extra api --extra ct2 --extra vad --constraint requirements/dev.txt
compile trainer.txt --extra torch --extra train --extra s3 --extra ct2 --constraint requirements/dev.txt
"$uv" pip compile requirements/cuda.in --universal --python-version 3.11 --quiet --no-emit-index-url \
    --no-emit-find-links --no-header --no-annotate --generate-hashes -o requirements/cuda.txt
# Triton's Python backend has an environment of its own, with numpy before 2 and otherwise the tests' pins
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
sed 's/ \\$//' requirements/dev.txt | grep -E '^[a-z0-9].*==' | grep -v '^numpy==' >"$pins"
triton() { # input, output
    "$uv" pip compile "requirements/$1" --universal --python-version 3.11 --quiet --no-emit-index-url --no-emit-find-links \
        --no-header --no-annotate --generate-hashes --override requirements/triton-without.in --constraint "$pins" -o "$2"
}
triton triton.in services/tritonserver/requirements.txt
triton triton-image.in requirements/triton-image.txt
