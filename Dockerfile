# The studio in a container; docs/install.md says how to build and start it.
FROM python:3.12-slim

# cpu, or a build for the machine's cards such as cu130: a name in PyTorch's own package index.
ARG TORCH=cpu

# Triton compiles a small C extension before its first kernel.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home studio && mkdir -p /studio/outputs && chown studio /studio /studio/outputs
WORKDIR /studio

# The packages come before the code, so that a change of the code does not install them again.
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt \
        "$(grep ^torch== requirements.txt)+$TORCH" --extra-index-url "https://download.pytorch.org/whl/$TORCH" \
    && pip install --no-cache-dir -c constraints.txt -r requirements.txt
ENV LORA_STUDIO_NO_VENV=1 PYTHONUNBUFFERED=1

COPY --chown=studio . .
USER studio
VOLUME /studio/outputs
EXPOSE 7860
# Other machines can reach the port, so the studio asks for LORA_STUDIO_LOGIN=NAME:PASSWORD.
ENTRYPOINT ["python", "app.py"]
CMD ["--address", "0.0.0.0", "--port", "7860", "--no-browser"]
