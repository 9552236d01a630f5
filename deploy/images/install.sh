#!/bin/sh
# Fill /opt/k2d, the environment that becomes an image. Runs in a build stage only; pip itself stays in /opt/tools.
#   install.sh requirements FILE   everything in FILE, each wheel checked against its hash
#   install.sh torch FILE          torch, pinned by version alone
#   install.sh cuda FILE           CUDA libraries, and one folder of links to them for the loader's path
#   install.sh project FOLDER      k2d itself; then the build tools go, and pip checks that nothing is missing
set -eu
to_environment() { /opt/tools/bin/pip --python /opt/k2d/bin/python "$@"; }

# only wheels: a package that had to be compiled would need a compiler in the base image
install() { to_environment install --quiet --no-cache-dir --only-binary :all: "$@"; }

case $1 in
requirements)
    install --require-hashes -r "$2"
    # headers, static libraries and the packages' own tests: no program of ours opens them
    find /opt/k2d/lib -type d \( -path '*/pyarrow/include' -o -path '*/pyarrow/tests' -o -path '*/numpy/*/tests' \
        -o -path '*/fsspec/tests' -o -path '*/torch/include' \) -prune -exec rm -rf {} +
    ;;
torch)
    install -r "$2"
    ;;
cuda)
    install --require-hashes -r "$2"
    mkdir -p /opt/k2d/lib/cuda
    for library in /opt/k2d/lib/python3.*/site-packages/nvidia/*/lib/*.so*; do
        ln -s "../${library#/opt/k2d/lib/}" /opt/k2d/lib/cuda/
    done
    test -e /opt/k2d/lib/cuda/libcublas.so.12 # what CTranslate2 opens by this name
    ;;
project)
    to_environment install --quiet --no-deps --no-build-isolation "$2"
    to_environment uninstall --quiet --yes hatchling editables trove-classifiers pathspec pluggy tomlkit
    to_environment check
    ;;
*)
    echo "install.sh: unknown step: $1" >&2
    exit 2
    ;;
esac
