#!/bin/sh
# Environments of their own, below DIR, for what the benchmarks compare with:
#   . .venv/bin/activate; sh benchmarks/peers.sh DIR
# DIR/loaders sees the packages of the active environment and has the loaders of others, without the models they come
# with; DIR/beets has beets; DIR/ffmpeg is a static FFmpeg that has soxr. torchcodec, by which torchaudio decodes since
# 2.9, wants FFmpeg's libraries: apt-get install ffmpeg.
set -eu
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
HERE=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

[ -d "$DIR/loaders" ] || python -m venv "$DIR/loaders"
"$DIR/loaders/bin/pip" install --quiet --no-deps stable-audio-tools==0.0.19 audio-data-pytorch==0.0.19 \
    torchcodec==0.11.1 tinytag aiohttp aiosignal aiohappyeyeballs attrs frozenlist multidict propcache yarl tqdm
echo "$HERE" > "$("$DIR/loaders/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mousai.pth"

[ -d "$DIR/beets" ] || python -m venv "$DIR/beets"
"$DIR/beets/bin/pip" install --quiet beets==2.14.1

"$DIR/beets/bin/pip" install --quiet --no-deps --target "$DIR/static" imageio-ffmpeg==0.8.1
ln -sf "$DIR"/static/imageio_ffmpeg/binaries/ffmpeg-* "$DIR/ffmpeg"
