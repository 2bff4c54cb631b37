#!/bin/sh
# The whole training in order, each stage going on where its checkpoint left it.
# Arguments: the folder that prepare.py wrote, minutes for vae, minutes for unet.
# PYTHON is the interpreter, SHARDS the number of latents' shards, UNET more options for that stage.
out=$(realpath "$1") && cd "$(dirname "$0")" || exit 1
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=500000000 # glibc keeps what it has
export ATEN_CPU_CAPABILITY=avx512 PYTHONDONTWRITEBYTECODE=1
resume() { [ -e "$out/$1.pt" ] && echo --resume; }
stage() { name=$1 && shift && nice -n 10 "${PYTHON:-python3}" train.py --out "$out" --stage "$name" "$@" >>"$out/$name.log" 2>&1; }
set -e
if [ ! -e "$out/vae.done" ]; then
  stage vae --minutes "${2:-45}" --matrix-rate 3e-3 --judge 400 $(resume vae)
  touch "$out/vae.done"
fi
stage latents --shards "${SHARDS:-10}" --things things.txt
[ -e "$out/unet.pt" ] || stage words --steps 500 --things things.txt
stage unet --minutes "${3:-600}" --matrix-rate 4e-3 --adam-rate 2e-3 --batch 64 --average 0.998 --drop 0.07 --noisy 3 \
  --things things.txt --focus focus.txt ${UNET:-} $(resume unet)
