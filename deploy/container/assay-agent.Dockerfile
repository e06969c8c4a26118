# The agent. Build from the root of the repository: docker build -f deploy/container/assay-agent.Dockerfile .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p assay-agent --bin assay-agent

# glibc, because the NVIDIA management library that a container runtime mounts is linked to it.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/assay-agent /usr/local/bin/assay-agent
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/assay-agent"]
CMD ["run"]
