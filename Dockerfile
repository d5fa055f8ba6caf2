# Two stages on one base: the first fetches the wheels of the lock and compiles our own, the second carries only what runs.
FROM docker.io/library/python:3.11-slim-bookworm AS build
# python3-dev: for a base whose Python is Debian's own; the official image's has its headers.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev
WORKDIR /src
COPY requirements.lock pyproject.toml hatch_build.py README.md ./
RUN pip download --no-cache-dir --disable-pip-version-check --quiet --require-hashes --dest /wheels -r requirements.lock
COPY protocol protocol
COPY client client
COPY server server
# Of the lock, which has the development tools too, only what the server needs. Compiled: the health check must start quickly.
RUN python -m venv /opt/jetwire \
 && /opt/jetwire/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --no-index --find-links /wheels '.[server]' \
 && /opt/jetwire/bin/python -c 'import jetwire_server__mypyc' \
 && /opt/jetwire/bin/pip uninstall --yes --quiet pip setuptools

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
  CMD ["python", "-m", "jetwire_server.health", "127.0.0.1:3730"]
# Inside a container the loopback is the container's own; publishing the ports safely is compose.yaml's business.
ENTRYPOINT ["jetwired"]
CMD ["serve", "--data", "/data", "--http", "127.0.0.1:3730", "--tcp", "127.0.0.1:3731"]
