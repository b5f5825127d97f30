# docker build --target slim -t edgecnn:slim .     writes and runs TFLite
# docker build --target all -t edgecnn .           every format, NPUs and microcontrollers
# docker run --rm -v "$PWD:/work" edgecnn run
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY edgecnn edgecnn
COPY converters converters
COPY targets targets
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS slim
COPY constraints.txt /opt/edgecnn/
COPY --from=wheel /wheels /opt/edgecnn/
RUN python -m pip install --no-cache-dir -c /opt/edgecnn/constraints.txt "$(ls /opt/edgecnn/*.whl)[tflite]" \
    && useradd --create-home --uid 1000 edgecnn
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["edgecnn"]
CMD ["--help"]

FROM slim AS all
USER 0
# The C compiler builds artifacts of `--target c`; Debian's own pinned versions vanish from its mirrors.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip install --no-cache-dir -c /opt/edgecnn/constraints.txt "$(ls /opt/edgecnn/*.whl)[all]"
USER 1000:1000
