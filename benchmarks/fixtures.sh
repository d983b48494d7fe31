#!/bin/sh
# The test files of mutagen, mediafile, pytaglib and TagLib with their tests, unpacked into DIR. beets' own sdist holds
# mediafile's files again, and its tests read them through mediafile.
#   sh benchmarks/fixtures.sh DIR       needs pip (PIP names it), apt-get, dpkg-dev; nothing is installed
# Several are excerpts of commercial recordings: test with them, never pass them on.
set -eu
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
PIP=${PIP:-pip}
cd "$DIR"
for release in mutagen-1.48.1 mediafile-0.13.0 pytaglib-3.2.0; do
    [ -d "$release" ] && continue
    name=${release%-*}
    $PIP download --quiet --no-deps --no-binary "$name" --dest . "$name==${release##*-}"
    rm -rf .unpacked && mkdir .unpacked && tar -xzf "$release.tar.gz" -C .unpacked
    mv ".unpacked/$release" "$release" && rmdir .unpacked && rm "$release.tar.gz"
done
if [ ! -d taglib ]; then
    # Source packages through lists of their own, made from the machine's: its settings stay as they are.
    APT="$DIR/.apt" && rm -rf "$APT" && mkdir -p "$APT/parts" "$APT/lists/partial" "$APT/cache/archives/partial"
    cat /etc/apt/sources.list.d/debian.sources | sed 's/^Types:.*/Types: deb-src/' > "$APT/parts/source.sources"
    set -- -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$APT/parts" -o "Dir::State::lists=$APT/lists" \
        -o "Dir::Cache=$APT/cache" -o APT::Sandbox::User=root
    apt-get "$@" -qq update
    cd "$APT" && apt-get "$@" -qq --download-only source taglib && dpkg-source --extract taglib_*.dsc "$DIR/taglib"
    rm -rf "$APT"
fi
