#!/bin/bash
# Makes an image of the example, without any registry: its binary, and the libraries that it is linked against on this machine.
# usage: examples/axum/image.sh [BINARY] [TAG]; needs a Docker that answers.
set -euo pipefail

binary=${1:-target/release/qm-example-axum}
tag=${2:-qm-example-axum:local}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,etc}
install -m 755 "$binary" "$root/bin/shop"
# What debuggers want is most of it.
strip "$root/bin/shop" 2>/dev/null || true
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m 755 "$(readlink -f "$library")" "$root$library"
done
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
tar -C "$root" -c . | docker import --change 'CMD ["/bin/shop"]' - "$tag"
