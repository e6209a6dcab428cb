#!/bin/bash
# Makes the image `busybox:local` that the examples run from, without any registry.
# Needs a busybox that is linked statically (Debian: apt-get install -y busybox-static) and a Docker that answers.
set -euo pipefail

busybox=${BUSYBOX:-$(command -v busybox)}
tag=${1:-busybox:local}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,etc,srv,var}
install -d -m 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
tar -C "$root" -c . | docker import --change 'CMD ["/bin/sh"]' - "$tag"
