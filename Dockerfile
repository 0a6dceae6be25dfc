# Two stages: the first installs the pinned dependencies and compiles the kernels, the second only has the result.
# It runs as a user without rights, on a read-only root: /data is the volume, /tmp may be a tmpfs.
#   docker run -p 127.0.0.1:8000:8000 -v driftline:/data driftline up --host 0.0.0.0 --open
# As it comes it asks for API keys: make one in the same volume first, or say --open as here, where only this machine
# reaches the port. docs/production.md, step 4, has both.

# By its digest, so that it is the same tomorrow; `make images` says whether the tag has moved on. A mirror's:
# --build-arg PYTHON_IMAGE=mirror.example.com/python:3.11.16-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.11.16-slim-trixie@sha256:e41613d42d4891e4930f79523f93f81bbc7632584ec65e36ab055f41a800b41e

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock /src/
# Every pinned wheel is taken, but installed is only what Driftline runs with: not what builds it, not what draws plots.
RUN python3 -m pip download --require-hashes --dest /wheels -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY client /src/client
COPY driftline /src/driftline
COPY stream /src/stream
COPY learner /src/learner
COPY api /src/api
COPY cli /src/cli
# The kernels are compiled for this machine's processor; on another one they are compiled again at each start. For an image
# that is pushed: --build-arg CPU=x86-64-v3 (AVX2, so since 2013 or 2015), about a tenth slower here, the same models.
ARG CPU=native
RUN python3 -m venv --without-pip /opt/driftline \
    && python3 -m pip --python /opt/driftline/bin/python install --no-index --find-links /wheels /src/client /src \
    && find /opt/driftline -type d -name tests -prune -exec rm -r {} + \
    && mkdir /opt/kernels \
    && if [ "$CPU" != native ]; then echo "$CPU" >/opt/kernels/cpu; export NUMBA_CPU_NAME="$CPU" NUMBA_CPU_FEATURES=; fi \
    && NUMBA_CACHE_DIR=/opt/kernels /opt/driftline/bin/python -m driftline.learner.loop.warm
# The label below says what is installed, or nothing: `make image` gives it.
ARG VERSION=
RUN test -z "$VERSION" || test "driftline $VERSION" = "$(/opt/driftline/bin/driftline --version)"

FROM ${PYTHON_IMAGE}
ARG VERSION=
LABEL org.opencontainers.image.title="Driftline" org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION"
COPY --from=build /opt/driftline /opt/driftline
COPY --from=build /opt/kernels /opt/kernels
COPY deploy/entrypoint deploy/health /opt/
# A number, so that Kubernetes' runAsNonRoot knows without looking names up that this is not root.
RUN groupadd --system --gid 10001 driftline \
    && useradd --system --uid 10001 --gid 10001 --no-create-home driftline \
    && install --directory --owner 10001 --group 10001 /data
USER 10001:10001
WORKDIR /data
ENV PATH=/opt/driftline/bin:$PATH DRIFTLINE_DATA=/data NUMBA_CACHE_DIR=/tmp/kernels HOME=/tmp PYTHONUNBUFFERED=1
ENV DRIFTLINE_LOG_FORMAT=json
# Asked by /opt/health, which finds out by itself where anything listens.
ENV DRIFTLINE_HEALTH_PORT=8001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/health"]
ENTRYPOINT ["/opt/entrypoint"]
CMD ["up", "--host", "0.0.0.0"]
