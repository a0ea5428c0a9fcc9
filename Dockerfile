# `docker build -t st-modules .` makes a server for CPUs. For GPUs of NVIDIA, PyPI has torch with CUDA:
# `docker build -t st-modules:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .`
# CUDA's libraries come as packages that torch asks for, so both are the same file; the driver is the host's, through
# NVIDIA's container toolkit. Neither image was built by the authors, and the one for GPUs was never run.
# The Python is that of the tests.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /source
# torch is most of the image and changes least: a layer of its own.
COPY constraints.txt ./
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY st_modules ./st_modules
COPY langchain_gme ./langchain_gme
COPY llamaindex_gme ./llamaindex_gme
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/venv /opt/venv
# The one folder that is written to: what is downloaded from the Hub.
RUN useradd --uid 10001 --no-create-home server && install --directory --owner=10001 /models
ENV PATH=/opt/venv/bin:$PATH HF_HOME=/models HF_HUB_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /models
USER 10001
EXPOSE 8000
# A model is downloaded before it is loaded.
HEALTHCHECK --start-period=1h --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["st-modules", "serve", "--host", "0.0.0.0"]
CMD ["--model", "gme-2b"]
