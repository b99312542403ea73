#!/usr/bin/env bash
# Installs the peers into environments of their own under build/bench-environments (or $QCC_BENCH_ENVIRONMENTS): a quarter of an hour,
# several GB. Every peer is optional: what is missing is skipped with its reason. Names of environments as arguments install only those.
set -u
cd "$(dirname "$0")/.."
folder=${QCC_BENCH_ENVIRONMENTS:-build/bench-environments}
mkdir -p "$folder"

make() { # NAME PACKAGES...
    local name=$1
    shift
    [ -x "$folder/$name/bin/python" ] || python3 -m venv "$folder/$name" || return
    for packages in "$@"; do
        # shellcheck disable=SC2086
        "$folder/$name/bin/pip" install -q $packages || echo "$name: could not install $packages" >&2
    done
}

for name in "${@:-peers litert deepsparse}"; do
    for one in $name; do
        case $one in
        peers)
            make peers torch==2.13.0 "numpy onnx onnxruntime openvino nncf torchao gguf" "iree-base-compiler iree-base-runtime"
            CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF" make peers "--no-binary llama-cpp-python llama-cpp-python"
            ;;
        litert) make litert torch==2.13.0 litert-torch ;;
        deepsparse) make deepsparse "deepsparse==1.8.0 onnx" ;;
        *) echo "no environment is called $one, expected some of: peers litert deepsparse" >&2 ;;
        esac
    done
done
