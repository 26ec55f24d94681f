# syntax=docker/dockerfile:1
# The image of servers, workers and every other command: `docker build -t whitemonday .`
#
# Dependencies and compiled crates are kept in BuildKit's caches, so that a change of the sources compiles the sources only.

FROM node:22-bookworm-slim AS web
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-audit --no-fund
COPY web ./
RUN npm run --silent build

FROM rust:1.95-bookworm AS program
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
# The checked queries compile against this folder: no database is needed.
COPY .sqlx .sqlx
COPY migrations migrations
COPY templates templates
COPY frontend-queries frontend-queries
COPY src src
# Cargo.toml names the integration tests; nothing compiles them here.
COPY tests/it/main.rs tests/it/main.rs
COPY --from=web /src/web/dist web/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin whitemonday \
    && strip --strip-debug -o /whitemonday target/release/whitemonday

FROM debian:bookworm-slim
# curl asks for health. Debian keeps one version of each package: a pinned one would be gone with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home whitemonday \
    && install -d -o whitemonday -g whitemonday /settings /data
COPY --from=program /whitemonday /usr/local/bin/whitemonday
USER 10001:10001
ENV LISTEN=0.0.0.0:8000 METRICS_ADDRESS=0.0.0.0:9464 LOG_FORMAT=json
EXPOSE 8000 9464
# Of a server. A worker answers the same on the port of its metrics.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8000/healthz/live"]
ENTRYPOINT ["whitemonday"]
CMD ["serve"]
