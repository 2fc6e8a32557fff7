#!/bin/sh
# Fetches the pictures the bundled model is trained on, from Debian packages, without root.
#
#     features/tiny/prepare.sh DIR        fills DIR/pictures and DIR/backgrounds (about 2 GB)
#
# Licences: see MODEL_CARD.md, and usr/share/doc/*/copyright below both directories.
set -eu

target=${1:?usage: prepare.sh DIR}
mkdir -p "$target/packages" "$target/pictures" "$target/backgrounds"
cd "$target/packages"

fetch() { # fetch PACKAGE DIRECTORY
    if ! ls "$1"_*.deb >/dev/null 2>&1; then
        apt-get download "$1"
    fi
    dpkg -x "$1"_*.deb "../$2"
}

for package in openclipart-png tuxpaint-stamps-default; do
    fetch "$package" pictures
done
for package in plasma-workspace-wallpapers lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \
    ukui-wallpapers gnome-backgrounds mate-backgrounds desktop-base propaganda-debian \
    xplanet-images lxqt-themes supertuxkart-data torcs-data; do
    fetch "$package" backgrounds
done
