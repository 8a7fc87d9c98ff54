# Kolosal with llama.cpp for CPUs, or with --build-arg PRESET=cuda for NVIDIA GPUs:
#
#   docker build --tag kolosal .
#   docker run --read-only --publish 127.0.0.1:8080:8080 --env KOLOSAL_API_KEY=... \
#     --volume /srv/models:/models:ro --volume kolosal:/var/lib/kolosal kolosal
#
# A GPU needs `--gpus all` besides. The CPU's code wants AVX2; CMAKE_ARGS="-DGGML_NATIVE=ON" builds for this machine's own.
ARG PRESET=cpu

FROM debian:12-slim AS build-cpu
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS build-cuda
FROM debian:12-slim AS run-cpu
FROM nvidia/cuda:12.9.1-runtime-ubuntu24.04 AS run-cuda

# hadolint ignore=DL3006
FROM build-${PRESET} AS build
ARG PRESET=cpu
ARG CMAKE_ARGS="-DGGML_NATIVE=OFF"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# versions of Debian's packages change under a release's name: the release is what is pinned
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake ninja-build git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakePresets.json pyproject.toml README.md LICENSE ./
COPY scripts ./scripts
COPY kolosal ./kolosal
RUN python3 -m venv /opt/kolosal
RUN CMAKE_ARGS="$(python3 scripts/native.py --preset "$PRESET" --print-args) $CMAKE_ARGS" \
    CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
    /opt/kolosal/bin/python -m pip install --no-cache-dir --no-deps --no-binary llama-cpp-python --require-hashes \
    --requirement scripts/locks/native.txt
RUN /opt/kolosal/bin/python -m pip install --no-cache-dir --require-hashes --requirement scripts/locks/run.txt \
    && /opt/kolosal/bin/python -m pip install --no-cache-dir --no-deps . \
    && /opt/kolosal/bin/python -m compileall -q /opt/kolosal

# hadolint ignore=DL3006
FROM run-${PRESET}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 kolosal \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/kolosal --no-log-init kolosal \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/kolosal \
    && install --directory /models
COPY --from=build /opt/kolosal /opt/kolosal
# other machines are let in only with a key: KOLOSAL_API_KEY
ENV PATH=/opt/kolosal/bin:$PATH \
    HOME=/var/lib/kolosal \
    PYTHONDONTWRITEBYTECODE=1 \
    KOLOSAL_HOST=0.0.0.0 \
    KOLOSAL_LIBRARY_FOLDERS=/var/lib/kolosal/models,/models \
    KOLOSAL_STATE_DIR=/var/lib/kolosal
VOLUME ["/models", "/var/lib/kolosal"]
WORKDIR /var/lib/kolosal
EXPOSE 8080
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["kolosal", "status"]
ENTRYPOINT ["kolosal"]
CMD ["serve"]
