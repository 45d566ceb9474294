# docker build --target service .        the HTTP service (the default)
# docker build --target service-cuda .   the same on an NVIDIA GPU; CUDA and cuDNN come from pip
# docker build --target trainer .        the worker that takes retraining jobs, and every training command
# docker build --target trainer-cuda .   the same on an NVIDIA GPU
#
# deploy/images/build.sh builds them, without a Docker engine too. Build arguments SSL_CERT_FILE, PIP_CERT and
# UV_FIND_LINKS are for builds that need certificates or wheels of their own.

# What the images serve: any user of group 0 may write it, since clusters choose the user.
FROM python:3.11-slim AS shipped
COPY models /models
RUN chmod -R g=u /models

FROM python:3.11-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/ganserve
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /srv/ganserve/var --shell /usr/sbin/nologin ganserve \
    && install --directory --owner ganserve --group root --mode 775 models var
ENV GANSERVE_HOST=0.0.0.0 GANSERVE_PORT=8000 GANSERVE_MODELS=/srv/ganserve/models GANSERVE_DATA=/srv/ganserve/var
COPY deploy/images/install-needs /usr/local/bin/
COPY pyproject.toml constraints.txt README.md ./

# Without the sources there is nothing to build but the lists of needs: these layers last until a version changes.
FROM base AS service-needs
ARG SSL_CERT_FILE PIP_CERT UV_FIND_LINKS
RUN install-needs --override /tmp/without '.[otel,parquet,postgres,store]' onnxruntime

FROM base AS cuda-needs
ARG SSL_CERT_FILE PIP_CERT UV_FIND_LINKS
RUN install-needs '.[cuda,otel,parquet,postgres,store]'

# PyTorch's default wheel carries CUDA, five times the size of the one for CPUs, which lies elsewhere: uv knows where.
FROM service-needs AS trainer-needs
ARG SSL_CERT_FILE PIP_CERT UV_FIND_LINKS
ARG TORCH_BACKEND=cpu
RUN install-needs --override /tmp/without ${TORCH_BACKEND:+--torch-backend $TORCH_BACKEND} '.[training]' \
    && python -c "import torch, sys; sys.exit(torch.version.cuda and 'this PyTorch carries CUDA: --target trainer-cuda')"

FROM service-needs AS trainer-cuda-needs
ARG SSL_CERT_FILE PIP_CERT UV_FIND_LINKS
RUN install-needs --override /tmp/without '.[training]'

FROM trainer-cuda-needs AS trainer-cuda
# Libraries write beside the data, so that the root file system can be read-only.
ENV HF_HOME=/srv/ganserve/var/huggingface
COPY ganserve ganserve
COPY service service
COPY training training
COPY --from=shipped --chown=10001:0 /models models
USER 10001
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "training.worker"]

FROM trainer-needs AS trainer
ENV HF_HOME=/srv/ganserve/var/huggingface
COPY ganserve ganserve
COPY service service
COPY training training
COPY --from=shipped --chown=10001:0 /models models
USER 10001
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "training.worker"]

FROM cuda-needs AS service-cuda
COPY ganserve ganserve
COPY service service
COPY --from=shipped --chown=10001:0 /models models
USER 10001
ENV GANSERVE_DEVICE=cuda
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GANSERVE_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]

FROM service-needs AS service
COPY ganserve ganserve
COPY service service
COPY --from=shipped --chown=10001:0 /models models
USER 10001
VOLUME ["/srv/ganserve/models", "/srv/ganserve/var"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GANSERVE_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
