#!/bin/sh
# Installs what the published image is compiled with, apart from Rust: the packages of image/toolchain.toml in exactly those versions.
# As root, in a minimal Debian system of that release; image/Containerfile and `cargo xtask reproduce --rootfs` both run this file.
#
#   sh system.sh toolchain.toml [MIRROR]        by default from Debian's archive of old versions
#   sh system.sh toolchain.toml --list          prints the packages and does nothing
set -eu

value() { sed -n "s/^$2 = \"\(.*\)\"\$/\1/p" "$1"; }
packages=$(sed -n 's/^    "\([^"=]*=[^"]*\)",$/\1/p' "$1")
mirror=${2:-$(value "$1" snapshot)}
if [ "$mirror" = --list ]; then
    echo "$packages"
    exit
fi

rm -f /etc/apt/sources.list.d/*
# An archive of old versions is signed as it was then.
echo "deb [check-valid-until=no] $mirror $(value "$1" suite) main" >/etc/apt/sources.list
apt-get -q update
# Each package is one word.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends --allow-downgrades $packages
