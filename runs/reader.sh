#!/usr/bin/env bash
# The recipe of the reader that ships with dptr: from lists of words and labelled crops to its weights.
#
#   WORDS="lexicon.txt signs.txt" CROPS="iiit5k svt ic15" VAL="ic03_val vintext_val" runs/reader.sh OUT
#
# WORDS are lists of words, one file or more; CROPS and VAL labelled pictures, as `dptr finetune` reads them. PHOTOS
# (a folder) is what words are drawn on, FONTS (a folder) what they are drawn with; without them plain colours and the
# fonts of the system do. STEPS, BATCH and DEVICE suit the machine: 1,200 steps of 48 take two hours of one core, a card
# does thousands of 256 in a tenth of that. Stopped at any moment, the same command goes on.
set -euo pipefail
OUT=${1:?"usage: WORDS=... CROPS=... VAL=... runs/reader.sh OUT"}
: "${WORDS:?lists of words}" "${CROPS:?labelled crops}" "${VAL:?crops to choose the best checkpoint by}"
STEPS=${STEPS:-1200} BATCH=${BATCH:-48} DEVICE=${DEVICE:-auto} SEED=${SEED:-0}
export DPTR_CACHE=$OUT/cache

# 1. Words, once: the text states of the shipped encoder. Three in ten are made up: prices, codes, misspelt words.
dptr embed-text $WORDS --corpus words --hard-words 0.3 --device "$DEVICE"

# 2. A decoder that has only read text, narrow because the reader should be small.
dptr pretrain --corpus words --perturb "gaussian(50%)" --decoder nrtr --depth 1 --width 128 --heads 4 \
    --batch 128 --steps "${PRETRAIN_STEPS:-1500}" --lr 3e-3 --seed "$SEED" --device "$DEVICE" --out "$OUT/decoder"

# 3. Behind the encoder's image tower, as it is: its tokens of the crops are made once, and steps are cheap.
crops=() weights=() val=() drawn=()
for one in $CROPS; do crops+=(--train "$one"); weights+=(--weight 1); done
for one in $VAL; do val+=(--val "$one"); done
if [[ -n ${PHOTOS:-} ]]; then drawn+=(--behind "$PHOTOS"); fi
if [[ -n ${FONTS:-} ]]; then drawn+=(--fonts "$FONTS"); fi
dptr finetune --init "$OUT/decoder" --no-fmu --freeze "${crops[@]}" "${val[@]}" --batch 64 \
    --steps "${FROZEN_STEPS:-1000}" --lr 5e-4 --seed "$SEED" --device "$DEVICE" --out "$OUT/frozen"

# 4. Then all of it, with care, on the same crops and on words that are drawn when they are needed.
dptr finetune --init "$OUT/frozen" "${crops[@]}" --train drawn:words "${weights[@]}" --weight 0.5 "${drawn[@]}" \
    "${val[@]}" --batch "$BATCH" --steps "$STEPS" --lr 2e-4 --encoder-lr 1e-4 \
    --seed "$SEED" --device "$DEVICE" --out "$OUT/reader"

# 5. The weights, in a quarter of the bytes, and how they read what they never saw.
dptr export "$OUT/reader" --int8 --out "$OUT/exported"
for one in $VAL; do dptr evaluate "$OUT/exported" --data "$one"; done
