# The scheduler. Build from the root of the repository: docker build -f deploy/container/assay.Dockerfile .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p assay-scheduler --bin assay

# glibc, certificates and nothing to run but the program; uid 65532, nothing writable.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/assay /usr/local/bin/assay
USER 65532:65532
EXPOSE 7443/udp 8080/tcp 8081/tcp
ENTRYPOINT ["/usr/local/bin/assay"]
CMD ["serve", "--cluster=kube"]
