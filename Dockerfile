# Two stages: the first builds the wheels from the lock, the second carries only what runs.
FROM docker.io/library/python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv /opt/jetwire \
 && /opt/jetwire/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY protocol protocol
COPY client client
COPY server server
# The development tools of the lock are taken out again: the image runs the server and the client, nothing else.
RUN /opt/jetwire/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/jetwire/bin/pip uninstall --yes --quiet hypothesis import-linter grimp mypy ruff pytest pytest-asyncio pytest-xdist \
      trustme jsonschema hatchling editables pip setuptools \
 && find /opt/jetwire -name __pycache__ -prune -exec rm -rf {} +

FROM docker.io/library/python:3.11-slim-bookworm
RUN groupadd --system --gid 3730 jetwire \
 && useradd --system --uid 3730 --gid jetwire --no-create-home --shell /usr/sbin/nologin jetwire \
 && install --directory --owner=jetwire --group=jetwire /data
COPY --from=build /opt/jetwire /opt/jetwire
ENV PATH=/opt/jetwire/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER jetwire
VOLUME /data
EXPOSE 3730 3731
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["jetwired", "health", "--http", "127.0.0.1:3730"]
# Inside a container the loopback is the container's own; publishing the ports safely is compose.yaml's business.
ENTRYPOINT ["jetwired"]
CMD ["serve", "--data", "/data", "--http", "127.0.0.1:3730", "--tcp", "127.0.0.1:3731"]
