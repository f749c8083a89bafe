# Linkbeat's agent, from the repository's root: docker build -f deploy/agent.Dockerfile -t linkbeat-agent .
# It reports the host it runs on if the host's /proc, /sys and / are mounted as compose.yaml does.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

FROM python AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-pip python3-venv
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ONLY_BINARY=:all: PIP_REQUIRE_VIRTUALENV=0
WORKDIR /build
COPY requirements.lock deploy/build.lock ./
# Of all that the service needs, the agent needs msgspec.
RUN sed -n '/^msgspec==/,/[^\\]$/p' requirements.lock > agent.lock \
 && python3 -m venv tools && tools/bin/pip install --require-hashes -r build.lock \
 && python3 -m venv --without-pip /opt/linkbeat-agent \
 && pip --python /opt/linkbeat-agent/bin/python install --require-hashes -r agent.lock
COPY agent agent
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist ./agent \
 && pip --python /opt/linkbeat-agent/bin/python install --no-deps --no-index dist/*.whl

FROM python
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Linkbeat agent" \
      org.opencontainers.image.description="Reports a machine's network counters and filesystems to Linkbeat" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The service's number: a token that the service's container writes is the agent's to read.
RUN groupadd --gid 10001 linkbeat \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/linkbeat-agent --shell /usr/sbin/nologin linkbeat \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/linkbeat-agent
COPY --from=build /opt/linkbeat-agent /opt/linkbeat-agent
# The root may be read-only: all that is written is the spool.
ENV PATH=/opt/linkbeat-agent/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
    LINKBEAT_SPOOL_DIR=/var/lib/linkbeat-agent
VOLUME /var/lib/linkbeat-agent
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
# Settings, service, token, clock, and what is visible of the host; its lines are in docker inspect.
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s --retries=2 CMD ["linkbeat-agent", "doctor"]
ENTRYPOINT ["linkbeat-agent"]
CMD ["run"]
