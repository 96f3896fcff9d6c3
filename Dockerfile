# Two images from one base: `operator` (no torch, no Ray) and `trainer`. Build with `make images`.
# BASE_IMAGE is any Debian or Ubuntu with Python 3.11 to 3.13 and venv.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# wget is for KubeRay's probes, which run it in the container.
FROM ${BASE_IMAGE} AS base
RUN command -v wget >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*; }
RUN groupadd --gid 1000 rl && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp rl
# The root file system is read-only where this runs: /tmp is the one place to write.
ENV HOME=/tmp PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp

# The secret `environment`, where given, carries the machine's proxies, indexes and certificates into a step, and into no
# image.
FROM base AS tools
ARG UV_VERSION
RUN --mount=type=secret,id=environment --mount=type=secret,id=certificates \
    set -ea; [ ! -f /run/secrets/environment ] || . /run/secrets/environment; \
    python3 -m venv /opt/uv; /opt/uv/bin/pip install --quiet "uv${UV_VERSION:+==$UV_VERSION}"
ENV PATH=/opt/uv/bin:$PATH UV_CACHE_DIR=/var/cache/uv UV_PYTHON=python3 UV_PYTHON_DOWNLOADS=never

# One list of pinned, hashed packages for each image: a layer of dependencies is rebuilt when its list changes.
FROM tools AS locked
WORKDIR /locked
COPY pyproject.toml uv.lock ./
RUN export="uv export --quiet --frozen --no-default-groups --no-emit-project"; \
    $export --extra operator --output-file operator.txt; \
    $export --extra trainer --extra search --output-file trainer.txt

FROM tools AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY rltrainer rltrainer
COPY operator operator
RUN --mount=type=cache,target=/var/cache/uv --mount=type=secret,id=environment --mount=type=secret,id=certificates \
    set -ea; [ ! -f /run/secrets/environment ] || . /run/secrets/environment; \
    uv build --quiet --wheel --out-dir /wheel

# Bytecode is compiled at installation: a container on a read-only root could not keep it.
FROM base AS operator-dependencies
COPY --from=locked /locked/operator.txt /opt/requirements.txt
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=environment --mount=type=secret,id=certificates \
    set -ea; [ ! -f /run/secrets/environment ] || . /run/secrets/environment; \
    export UV_CACHE_DIR="${UV_CACHE_DIR:-/var/cache/uv}" UV_LINK_MODE=copy; \
    /opt/uv/bin/uv venv --quiet --python python3 --no-python-downloads /opt/venv; \
    /opt/uv/bin/uv pip install --python /opt/venv --no-deps --compile-bytecode --requirement /opt/requirements.txt

FROM operator-dependencies AS operator
COPY --from=wheel /wheel /opt/wheel
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv \
    /opt/uv/bin/uv pip install --quiet --offline --no-cache --python /opt/venv --no-deps --compile-bytecode /opt/wheel/*.whl
USER 1000:1000
ENTRYPOINT ["rloperator"]

# Static libraries are for linking, which nothing here does.
FROM base AS trainer-dependencies
COPY --from=locked /locked/trainer.txt /opt/requirements.txt
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=environment --mount=type=secret,id=certificates \
    set -ea; [ ! -f /run/secrets/environment ] || . /run/secrets/environment; \
    export UV_CACHE_DIR="${UV_CACHE_DIR:-/var/cache/uv}" UV_LINK_MODE=copy; \
    /opt/uv/bin/uv venv --quiet --python python3 --no-python-downloads /opt/venv; \
    /opt/uv/bin/uv pip install --python /opt/venv --no-deps --compile-bytecode --requirement /opt/requirements.txt; \
    find /opt/venv -name '*.a' -delete

FROM trainer-dependencies AS trainer
COPY --from=wheel /wheel /opt/wheel
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv \
    /opt/uv/bin/uv pip install --quiet --offline --no-cache --python /opt/venv --no-deps --compile-bytecode /opt/wheel/*.whl
USER 1000:1000
ENTRYPOINT ["rltrainer"]
