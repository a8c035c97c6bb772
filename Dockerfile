# A model as an HTTP service (docs/deployment/serve.md):
#   docker build --tag secateurs-serve .
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/models/small:/model:ro" secateurs-serve
# An exported file: add its path to the line, for example /model/small.onnx.
# PyTorch's default build for Linux holds libraries for graphics cards; with an index that has a
# build without them the image is some gigabytes smaller: --build-arg PIP_EXTRA_INDEX_URL=ADDRESS.
FROM python:3.13-slim
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve,onnx]' \
    && useradd --create-home --uid 1000 serve
USER serve
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["secateurs", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
