#!/bin/sh
# A fixed real corpus: five hours of music from Debian packages whose licences allow derived works, unpacked into DIR.
#   sh benchmarks/corpus.sh DIR       needs apt-get and dpkg; nothing is installed
# Licences: MIT (fretsonfire-songs-sectoid), Free Art License (amoebax-data), the rest CC-BY-SA-3.0; who made what is
# in each package's usr/share/doc/*/copyright. Stems, ambience and jingles are left out.
set -eu
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
PACKAGES="amoebax-data ardentryst flare-game fretsonfire-songs-muldjord fretsonfire-songs-sectoid megaglest-data
  pink-pony-data singularity-music unknown-horizons zaz-data"
for package in $PACKAGES; do
    [ -d "$DIR/$package" ] && continue
    temporary="$DIR/.$package"
    rm -rf "$temporary" && mkdir "$temporary" && cd "$temporary"
    apt-get download "$package"
    dpkg -x ./*.deb . && rm ./*.deb
    mv usr/share/doc/"$package"*/copyright . 2>/dev/null || true
    find . -type f ! -name copyright \( ! \( -name '*.ogg' -o -name '*.mp3' \) -o -size -300k -o -name 'guitar.ogg' \
        -o -ipath '*/sounds/*' -o -path '*/soundfx/*' \) -delete
    find . -depth -mindepth 1 \( -type d -empty -o -type l \) -delete
    mv "$temporary" "$DIR/$package"
done
