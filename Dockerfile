# docker build --target service .        the HTTP service (the default)
# docker build --target service-cuda .   the same on an NVIDIA GPU; CUDA and cuDNN come from pip
# docker build --target trainer .        the worker that takes retraining jobs, and every training command
#
# PyTorch's default wheel for Linux carries CUDA. For a small CPU trainer, name an index of CPU wheels:
#   docker build --target trainer --build-arg PIP_EXTRA_INDEX_URL=https://... .

FROM python:3.11-slim AS service-needs
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /srv/ganserve
COPY pyproject.toml constraints.txt README.md ./
# Without the sources there is nothing to build but the list of needs: this layer lasts until a version changes.
RUN pip install --constraint constraints.txt '.[otel,parquet]' && rm -rf build ganserve.egg-info
RUN useradd --uid 10001 --no-create-home --home-dir /srv/ganserve/var --shell /usr/sbin/nologin ganserve \
    && install --directory --owner ganserve --group ganserve models var
ENV GANSERVE_HOST=0.0.0.0 GANSERVE_PORT=8000 GANSERVE_MODELS=/srv/ganserve/models GANSERVE_DATA=/srv/ganserve/var

FROM service-needs AS cuda-needs
RUN pip install --constraint constraints.txt '.[cuda]' && rm -rf build ganserve.egg-info

FROM service-needs AS trainer-needs
RUN pip install --constraint constraints.txt '.[training,postgres]' && rm -rf build ganserve.egg-info
# Both write beside the data, so that the root file system can be read-only.
ENV HF_HOME=/srv/ganserve/var/huggingface

FROM trainer-needs AS trainer
COPY ganserve ganserve
COPY service service
COPY training training
COPY --chown=ganserve:ganserve models models
USER ganserve
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "training.worker"]

FROM cuda-needs AS service-cuda
COPY ganserve ganserve
COPY service service
COPY --chown=ganserve:ganserve models models
USER ganserve
ENV GANSERVE_DEVICE=cuda
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GANSERVE_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]

FROM service-needs AS service
COPY ganserve ganserve
COPY service service
COPY --chown=ganserve:ganserve models models
USER ganserve
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GANSERVE_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
