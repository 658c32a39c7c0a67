#!/usr/bin/env bash
# Makes the README's pictures anew from what the program really shows. Needs chromium.
#
#     docs/pictures/make.sh target/release/carafe
set -euo pipefail
carafe=$(realpath "${1:?the carafe to run}")
here=$(realpath "$(dirname "$0")")
scene=$(mktemp -d)
clients=()
trap 'kill "$server" 2>/dev/null || true; rm -rf "$scene"' EXIT

mkdir -p "$scene"/files/{music,photos}
echo "Pour me a glass." >"$scene/files/hello.txt"
head -c 30000000 /dev/zero >"$scene/files/big.bin"
head -c 190000 /dev/zero >"$scene/files/manual.pdf"
head -c 6200 /dev/zero >"$scene/files/notes.md"
head -c 4700000 /dev/zero >"$scene/files/song.flac"
touch -d "2026-10-03 09:12" "$scene"/files/*.*
touch -d "2026-11-21 18:40" "$scene"/files/hello.txt "$scene"/files/music

cd "$scene"
"$carafe" serve -q -p 0 -b 127.0.0.1 --listing files 2>said &
server=$!
until port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' said) && [ -n "$port" ]; do sleep 0.05; done

# Twice the pixels, so that text is sharp where it is shown smaller.
shoot() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=2 \
        --user-data-dir="$scene/profile" --window-size="$2" --screenshot="$here/$1.png" "$3" 2>/dev/null
}

shoot list 640,424 "http://127.0.0.1:$port/"
"$carafe" soak "127.0.0.1:$port" hello.txt notes.md manual.pdf -q 500 -z 30s --zipf \
    --mix fast=80%,slow=10%,abort=5%,halfclose=2%,split=2%,idle=1% --against files \
    --pid "$server" --report soak.html --quiet >/dev/null || true
shoot soak 640,690 "file://$scene/soak.html"

# Two clients alike, beside one that reads slowly.
"$carafe" serve -q -p 0 -b 127.0.0.1 --trace trace.html files 2>said &
traced=$!
until port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' said) && [ -n "$port" ]; do sleep 0.05; done
for rate in 100M 100M 60M; do
    curl -s --limit-rate "$rate" -o /dev/null "http://127.0.0.1:$port/big.bin" &
    clients+=($!)
done
wait "${clients[@]}"
kill "$traced"
wait "$traced"
shoot trace 900,720 "file://$scene/trace.html"
