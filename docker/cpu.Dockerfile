# The service on a CPU. Build from the root of the repository:
#   docker build --file docker/cpu.Dockerfile --tag pan-reid:cpu .
# A base image needs python3 >= 3.11 with its venv module: --build-arg BASE_IMAGE=...
ARG BASE_IMAGE=python:3.11.16-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
# Packages by version and hash, in a separate layer that is rebuilt only after a change of the lock.
COPY requirements/cpu.txt requirements/
RUN python3 -m venv /opt/pan \
    && /opt/pan/bin/pip install --no-cache-dir --require-hashes --requirement requirements/cpu.txt
COPY pyproject.toml README.md LICENSE ./
# Only the code that the service runs: the wheel contains no training/, no export/ and none of their scripts.
COPY client client
COPY bundle bundle
COPY service service
RUN /opt/pan/bin/pip install --no-cache-dir --no-deps --no-build-isolation ./client . \
    && rm /opt/pan/bin/pan-train /opt/pan/bin/pan-export \
    && /opt/pan/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE}
COPY --from=build /opt/pan /opt/pan
# A fixed user id, so that the owner of a mounted folder can be set before the container exists.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pan \
    && install --directory --owner pan --group pan --mode 0700 /data \
    && install --directory /bundle
# ONNX Runtime's wheels send usage data to their maker unless ORT_DISABLE_TELEMETRY is set.
ENV PATH=/opt/pan/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
# Settings of `pan-serve run`. --env and options after the image's name replace them.
ENV PAN_BUNDLE=/bundle PAN_DATA=/data PAN_HOST=0.0.0.0 PAN_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME ["/bundle", "/data"]
EXPOSE 8000
# http.client, because urllib would use the proxy that HTTP_PROXY names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PAN_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["pan-serve", "run"]
