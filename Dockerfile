# Our two images: `operator` (controllers, and the loader of model servers) and `runner` (what a Job's pod runs).
# `make images` builds them. Their context is not this tree but a folder of wheels (e2e/cluster/own_images.py):
#   pip.whl   ours/*.whl   operator/{*.whl,requirements.txt}   runner/{*.whl,requirements.txt}
# The host fetches these in the versions and with the hashes of uv.lock, so that the build asks no package registry: it is
# the same offline, behind a proxy that re-signs TLS, and in public. Docker's older builder is enough (Debian has no buildx).
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN command -v python3 >/dev/null || { apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates && rm -rf /var/lib/apt/lists/*; }

# What only builds. pip runs out of its wheel, so that neither it nor Debian's python3-venv gets into an image.
FROM python AS tools
LABEL dspy-operator.made-here="true"
RUN python3 -m venv --without-pip /opt/venv
COPY pip.whl /wheels/
ENV PIP="python3 /wheels/pip.whl/pip --python /opt/venv install --no-index --no-deps --no-compile --no-cache-dir --no-warn-script-location --root-user-action=ignore --disable-pip-version-check"

FROM tools AS operator-packages
COPY operator/ /wheels/operator/
RUN $PIP --require-hashes --find-links /wheels/operator -r /wheels/operator/requirements.txt

# Our own code apart from the packages: a change of it makes one small layer anew. The command line needs [cli], which is not here.
FROM operator-packages AS operator-code
COPY ours/ /wheels/ours/
RUN $PIP --root /code /wheels/ours/*.whl && rm -r /code/opt/venv/bin

# Not compiled ahead: 50 MB of .pyc would save a long-lived process a second of its start.
FROM python AS operator
ARG BASE
ARG VERSION
LABEL org.opencontainers.image.title="dspy-operator" \
    org.opencontainers.image.description="Prompt optimization as a Kubernetes API: the operator" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.base.name="${BASE}"
# The root file system is read-only where this runs: no .pyc is tried, and what looks for a home finds none to write to.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python", "-m", "dspy_operator.main"]
COPY --from=operator-packages /opt/venv /opt/venv
COPY --from=operator-code /code/ /

# botocore brings descriptions of all of AWS, 26 MB; rows come from S3 alone (runner/bucket.py).
# Compiled ahead: a read-only root cannot keep .pyc, and importing takes half the time with them. Unchecked: their sources
# never change, and copies of files do not keep the times by which Python would compare.
FROM tools AS runner-packages
COPY runner/ /wheels/runner/
RUN $PIP --require-hashes --find-links /wheels/runner -r /wheels/runner/requirements.txt \
    && find /opt/venv/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 -exec rm -r {} + \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM runner-packages AS runner-code
COPY ours/ /wheels/ours/
RUN $PIP --root /code /wheels/ours/*.whl && rm -r /code/opt/venv/bin \
    && python3 -m compileall -q -s /code --invalidation-mode unchecked-hash /code

FROM python AS runner
ARG BASE
ARG VERSION
LABEL org.opencontainers.image.title="dspy-operator runner" \
    org.opencontainers.image.description="Prompt optimization as a Kubernetes API: DSPy inside a hard budget, one run a pod" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.base.name="${BASE}"
# PYTHONHASHSEED: the order of sets decides what optimizers ask for; a resumed run has to ask for the same.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONHASHSEED=0
USER 65532:65532
ENTRYPOINT ["python", "-m", "dspy_operator.runner"]
CMD ["/etc/dspy-operator/run.json"]
COPY --from=runner-packages /opt/venv /opt/venv
COPY --from=runner-code /code/ /
