#!/bin/sh
# The benchmark library: about six hours of music in 120 files from Debian packages, unpacked into DIR.
#   sh benchmarks/library.sh DIR      needs apt-get, dpkg and python3; nothing is installed
# Licences: CC-BY-SA-3.0 (singularity-music), GPL-2+ (the rest); who made what is in each package's copyright file.
set -eu
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
for package in wesnoth-1.16-music singularity-music nexuiz-music supertux-data; do
    [ -d "$DIR/$package" ] && continue
    temporary="$DIR/.$package"
    rm -rf "$temporary" && mkdir "$temporary" && cd "$temporary"
    apt-get download "$package"
    dpkg -x ./*.deb . && rm ./*.deb
    mv usr/share/doc/"$package"/copyright .
    find . -name '*.pk3' -execdir python3 -m zipfile -e {} . \;
    find . -type f ! -name copyright \( ! -name '*.ogg' -o -size -300k -o -path '*/speech/*' -o -path '*/sounds/*' \) -delete
    find . -depth -mindepth 1 \( -type d -empty -o -type l \) -delete
    mv "$temporary" "$DIR/$package"
done
