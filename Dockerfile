# syntax=docker/dockerfile:1
# The steps are the Makefile's: what works here works there.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt Makefile README.md LICENSE shortlist.yaml ./
COPY app app
COPY rankers rankers
COPY index index
COPY training training
# CONSTRAINTS=/dev/null takes a CUDA build of torch, for the worker.
ARG CONSTRAINTS=constraints.txt
RUN make install VENV=/opt/shortlist EDITABLE= EXTRAS=offline,postgres,train CONSTRAINTS=${CONSTRAINTS}
RUN make models VENV=/opt/shortlist EDITABLE= EXTRAS=offline,postgres,train CONSTRAINTS=${CONSTRAINTS}

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 shortlist
COPY --from=build /opt/shortlist /opt/shortlist
WORKDIR /srv/shortlist
COPY --from=build --chown=shortlist /src/shortlist.yaml ./
COPY --from=build --chown=shortlist /src/var var
# A volume mounted on one of these takes over its owner, and a new one on var/models its content.
RUN install -d -o shortlist var/index var/loop
USER shortlist
ENV PATH=/opt/shortlist/bin:$PATH HF_HUB_OFFLINE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
CMD ["shortlist", "serve", "--host", "0.0.0.0", "--port", "8000"]
