# Two stages: the first installs the pinned dependencies and compiles the kernels, the second only has the result.
# It runs as a user without rights, on a read-only root: /data is the volume, /tmp may be a tmpfs.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/driftline
COPY requirements.lock /src/
RUN /opt/driftline/bin/pip install --require-hashes -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE driftline.py /src/
COPY stream /src/stream
COPY learner /src/learner
COPY api /src/api
COPY cli /src/cli
RUN /opt/driftline/bin/pip install --no-deps --no-build-isolation /src \
    && NUMBA_CACHE_DIR=/opt/kernels /opt/driftline/bin/python -m learner.models \
    && NUMBA_CACHE_DIR=/opt/kernels /opt/driftline/bin/python -m learner.drift

FROM python:3.11-slim
COPY --from=build /opt/driftline /opt/driftline
COPY --from=build /opt/kernels /opt/kernels
COPY deploy/entrypoint /opt/entrypoint
RUN useradd --system --uid 10001 --no-create-home driftline && mkdir /data && chown driftline /data
USER driftline
WORKDIR /data
ENV PATH=/opt/driftline/bin:$PATH DRIFTLINE_DATA=/data NUMBA_CACHE_DIR=/tmp/kernels HOME=/tmp PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/entrypoint", "health"]
ENTRYPOINT ["/opt/entrypoint"]
CMD ["up", "--host", "0.0.0.0"]
