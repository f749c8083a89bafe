# Linkbeat's service, from the repository's root: docker build -f deploy/service.Dockerfile -t linkbeat .
# Give BASE a digest for a build that can be repeated to the byte.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

FROM python AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-pip python3-venv
# Another index than PyPI, if need be: --build-arg PIP_INDEX_URL=https://…
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ONLY_BINARY=:all: PIP_REQUIRE_VIRTUALENV=0
WORKDIR /build
# In layers of their own: they change less often than the code.
COPY requirements.lock deploy/build.lock ./
RUN python3 -m venv tools && tools/bin/pip install --require-hashes -r build.lock \
 && python3 -m venv --without-pip /opt/linkbeat \
 && pip --python /opt/linkbeat/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY deploy/wheel.py deploy/
COPY agent agent
COPY migrations migrations
COPY service service
COPY sql sql
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
 && pip --python /opt/linkbeat/bin/python install --no-deps --no-index dist/*.whl

FROM python
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Linkbeat" \
      org.opencontainers.image.description="What crosses every network interface of a fleet, exact to the byte, in TimescaleDB" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that Kubernetes can tell that it is not root's (runAsNonRoot). The second directory is for the token that
# compose.yaml leaves to the agent.
RUN groupadd --gid 10001 linkbeat \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/linkbeat --shell /usr/sbin/nologin linkbeat \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/linkbeat /var/lib/linkbeat-agent
COPY --from=build /opt/linkbeat /opt/linkbeat
# The root may be read-only: all that is written is below the data directory.
ENV PATH=/opt/linkbeat/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
    LINKBEAT_DATA_DIR=/var/lib/linkbeat LINKBEAT_HOST=0.0.0.0 LINKBEAT_PORT=8000
VOLUME /var/lib/linkbeat
WORKDIR /
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-IS", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"LINKBEAT_PORT\"]}/health/ready', timeout=4)"]
ENTRYPOINT ["linkbeat"]
CMD ["serve"]
