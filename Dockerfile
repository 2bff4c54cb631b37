# A static binary on an empty base, run by a user without rights.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /helicon . && mkdir /data

FROM scratch
COPY --from=build /helicon /helicon
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /data /data
# Artifacts pass through the temporary folder on their way to the store.
COPY --from=build --chown=65532:65532 /data /tmp
USER 65532:65532
ENV HELICON_DATA=/data
# Beyond loopback requests need keys: docker exec … /helicon keys create
ENV HELICON_ADDR=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s CMD ["/helicon", "health"]
ENTRYPOINT ["/helicon"]
CMD ["serve"]
