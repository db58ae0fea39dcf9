#!/usr/bin/env bash
# Asks whether the emulation would notice: breaks a kernel in one place at a time and expects its test to fail.
# usage: kernels/emulate/mutants.sh [PATTERN]     (those whose description matches; all take about 15 minutes). By hand.
#
# A mutant is "file ; what is wrong ; sed expression". Prints one line per mutant: how it was caught, or that it survived;
# exits with 1 where one survives. Left out, as no result can tell them apart:
# - no `__syncwarp` in `finish`: it is for ptxas, all lanes are together there;
# - queries or weights of missing heads that are not 0: the zeros of the other suffice, and both gone is a mutant;
# - another sample, or another rank in it: they decide how often the counts are over the row, not what they find.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
pattern=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mutants() {
  cat <<'END'
wgmma.cuh ; a descriptor says 64-byte swizzle ; s/uint64_t(1) << 62/uint64_t(2) << 62/
wgmma.cuh ; a descriptor says no swizzle ; s/uint64_t(1) << 62/uint64_t(0) << 62/
wgmma.cuh ; a descriptor's groups of rows are 512 bytes apart ; s/uint64_t(1024 >> 4)/uint64_t(512 >> 4)/
indexer_wgmma.cuh ; the second panel of keys is a row off ; s/(i \/ 4 \* TILE \* LINE +/(i \/ 4 * (TILE + 1) * LINE +/
indexer_wgmma.cuh ; keys go along k in steps of 16 bytes ; s/TILE \* LINE + i % 4 \* 32) \/ 16,/TILE * LINE + i % 4 * 16) \/ 16,/
indexer_wgmma.cuh ; columns go along k in steps of 64 bytes ; s/COLUMNS \* LINE + i % 4 \* 32) \/ 16,/COLUMNS * LINE + i % 4 * 64) \/ 16,/
indexer_wgmma.cuh ; the last step along k is left out ; s/i < PANELS \* 4; ++i)/i < PANELS * 4 - 1; ++i)/
indexer_wgmma.cuh ; sums are not begun anew ; s/, i > 0);/, true);/
indexer_wgmma.cuh ; rows are stored unswizzled ; s/16 \* device::swizzled(at, chunk % 8, 8)/16 * (8 * at + chunk % 8)/
indexer_wgmma.cuh ; both warpgroups multiply the same columns ; s/columns + group \* 2 \* HALF \* LINE/columns/
indexer_wgmma.cuh ; weights are the other warpgroup's ; s/weights + group \* 2 \* HALF/weights + (1 - group) * 2 * HALF/
indexer_wgmma.cuh ; no barrier when a tile has come ; s/^    __syncthreads();//
indexer_wgmma.cuh ; copies are not waited for ; s/device::copies_wait<AHEAD - 1>/device::copies_wait<AHEAD>/
indexer_wgmma.cuh ; copies are not shown to the tensor cores ; s/^    device::writes_to_products();//
indexer_wgmma.cuh ; copies are shown only after the barrier ; /^    device::writes_to_products();/{N;s/^\(.*\)\n\(.*\)$/\2\n\1/}
indexer_wgmma.cuh ; a group of copies is not committed ; s/^    device::copies_commit();//
indexer_wgmma.cuh ; one tile too many is fetched ahead ; s/AHEAD = STAGES - 2/AHEAD = STAGES - 1/
indexer_wgmma.cuh ; a tile is fetched into the wrong stage ; s/place(stages + (tile - begin) % STAGES/place(stages + (tile - begin + 1) % STAGES/
indexer_wgmma.cuh ; the wrong stage is multiplied ; s/((tile - begin) % STAGES \* STAGE + keys/((tile - begin + 1) % STAGES * STAGE + keys/
indexer_wgmma.cuh ; no fence before products ; s/^    device::products_fence();//
indexer_wgmma.cuh ; sums are used one group too early ; s/device::products_wait<1>(c)/device::products_wait<2>(c)/
indexer_wgmma.cuh ; a half's products are not committed ; /start(even, tile, TILE/{n;s/device::products_commit();//}
indexer_wgmma.cuh ; the next tile's products are not committed ; /for nobody/{n;s/device::products_commit();//}
indexer_wgmma.cuh ; the first tile's products are not committed ; /start(even, begin, 0, 0)/{n;s/device::products_commit();//}
indexer_wgmma.cuh ; the last products are not waited for ; s/^  device::products_wait<0>(even);//
indexer_wgmma.cuh ; keys 64.. are multiplied as keys 0.. ; s/start(odd, tile, TILE \/ 2, 1)/start(odd, tile, 0, 1)/
indexer_wgmma.cuh ; half 0 is multiplied for half 1 ; s/start(odd, tile, 0, 1)/start(odd, tile, 0, 0)/
indexer_wgmma.cuh ; a NaN vanishes in the ReLU ; s/device::relu(c\[i\])/fmaxf(c[i], 0.f)/
indexer_topk.cu ; mma.sync: a NaN vanishes in the ReLU ; s/device::relu(c\[n\]\[i\])/fmaxf(c[n][i], 0.f)/
indexer_wgmma.cuh ; ReLU is left out ; s/device::relu(c\[i\])/c[i]/
indexer_wgmma.cuh ; rows g and g + 8 change places ; s/+ g + 8 \* (t & 1)/+ g + 8 * (1 - (t \& 1))/
indexer_wgmma.cuh ; a warp takes its sums for another's ; s/keys + warp % 4 \* 16/keys + (warp + 1) % 4 * 16/
indexer_wgmma.cuh ; one visible key too many ; s/mine < min(o.keys, o.first + query)/mine < min(o.keys, o.first + query + 1)/
indexer_wgmma.cuh ; one visible key too few ; s/mine < min(o.keys, o.first + query)/mine < min(o.keys, o.first + query - 1)/
indexer_wgmma.cuh ; a row too many is written ; s/if (query < o.rows && mine </if (query <= o.rows \&\& mine </
indexer_wgmma.cuh ; a share's last tile is left out ; s/end = min(tiles, begin + share);/end = min(tiles, begin + share) - 1;/
indexer_wgmma.cuh ; dim is taken for full ; s/inside = 16 \* chunk < o.dim_bytes/inside = true/
indexer_wgmma.cuh ; missing heads have queries and weights ; s/ && head < o.heads//
indexer_wgmma.cuh ; scales of queries are left out ; s/if (FP8) weight \*= .*//
indexer_wgmma.cuh ; scales of keys are left out ; s/whole \* k_scale/whole/
fp8_dequant.cu ; fp8: a NaN vanishes in a row's maximum ; s/ || !(b == b)//
device.cuh ; fp8: a NaN becomes the largest code ; s/^  if (!(x == x)) return sign.*//
indexer_topk.cu ; mma.sync: no barrier when a tile has come ; s/^    __syncthreads();  \/\/ the tile has come.*//
indexer_topk.cu ; mma.sync: copies are not waited for ; s/device::copies_wait<STAGES - 2>/device::copies_wait<STAGES - 1>/
indexer_topk.cu ; mma.sync: the wrong stage is multiplied ; /const uint4\* stage/s/(tile - begin)/(tile - begin + 1)/
indexer_topk.cu ; mma.sync: one visible key too many ; s/mine < min(o.keys, o.first + query))/mine < min(o.keys, o.first + query + 1))/
indexer_topk.cu ; mma.sync: scales of keys are left out ; s/whole \* k_scale;/whole;/
indexer_select.cuh ; selection: ties go to the highest index ; s/out\[above_here + min(equal_here, equals)\] =/out[above_here + (equal_here ? min(equal_here, equals) - 1u : 0u)] =/
indexer_select.cuh ; selection: a tie too many ; s/equal_here < equals)/equal_here <= equals)/
indexer_select.cuh ; selection: the limit itself counts as above ; s/return s > value;/return s >= value;/
indexer_select.cuh ; selection: -0 comes before 0 ; s/__float_as_uint(score + 0.f)/__float_as_uint(score)/
indexer_select.cuh ; selection: a key beyond the row counts ; s/if (begin + i < row.keys) {/if (begin + i <= row.keys) {/
indexer_select.cuh ; selection: a key beyond the row is kept ; s/key_of(at, i) < row.keys/key_of(at, i) <= row.keys/
indexer_select.cuh ; selection: too few kept keys are taken for enough ; s/uint32_t(k) <= candidates \&\& //
indexer_select.cuh ; selection: too many kept keys are taken for all ; s/ \&\& candidates <= KEPT//
indexer_select.cuh ; selection: no barrier after the kept keys ; /^  });$/{n;s/^  __syncthreads();//}
indexer_select.cuh ; selection: no barrier before the kept keys ; s/^  __syncthreads();  \/\/ nobody reads.*//
indexer_select.cuh ; selection: the counter is not zeroed ; s/\*counter = 0;/;/
indexer_select.cuh ; selection: bins are not zeroed ; s/bins\[i\] = 0;/;/
indexer_select.cuh ; selection: bits of the first count are forgotten ; s/above = above << (high - low) | found->digit;/above = found->digit;/
indexer_select.cuh ; selection: the rank within the bin is forgotten ; s/^    wanted = found->wanted;//
indexer_select.cuh ; selection: readers of the last sums are not waited for ; s/^  __syncthreads();  \/\/ readers.*//
wgmma.cuh ; attention: a descriptor's panels of columns are 4096 bytes apart ; s/uint64_t(panel >> 4)/uint64_t(panel >> 5)/
wgmma.cuh ; attention: a descriptor's groups of keys are 512 bytes apart ; /columns_at/,/^}/s/uint64_t(1024 >> 4)/uint64_t(512 >> 4)/
wgmma.cuh ; attention: leading offset and stride of columns change places ; /columns_at/,/^}/{s/uint64_t(panel >> 4) << 16/uint64_t(1024 >> 4) << 16/;s/uint64_t(1024 >> 4) << 32/uint64_t(panel >> 4) << 32/}
wgmma.cuh ; attention: a descriptor of columns says no swizzle ; /columns_at/,/^}/s/uint64_t(1) << 62/uint64_t(0) << 62/
sparse_wgmma.cuh ; attention: no barrier when a tile has come ; s/^    __syncthreads();  \/\/ the tile.*//
sparse_wgmma.cuh ; attention: probabilities are read too early ; s/^    __syncthreads();  \/\/ probabilities.*//
sparse_wgmma.cuh ; attention: a warp fills what others of its warpgroup still read ; s/^    device::warpgroup_barrier.*//
sparse_wgmma.cuh ; attention: copies are not waited for ; s/device::copies_wait<1>/device::copies_wait<2>/
sparse_wgmma.cuh ; attention: copies are not shown to the tensor cores ; s/^    device::writes_to_products();//
sparse_wgmma.cuh ; attention: copies are shown only after the barrier ; /^    device::writes_to_products();/{N;s/^\(.*\)\n\(.*\)  \/\/.*$/\2\n\1/}
sparse_wgmma.cuh ; attention: probabilities are not shown to the tensor cores ; s/^      device::writes_to_products();//
sparse_wgmma.cuh ; attention: a group of copies is not committed ; s/^    device::copies_commit();//
sparse_wgmma.cuh ; attention: keys are filled while they are read ; s/device::products_wait<1>();/device::products_wait<2>();/
sparse_wgmma.cuh ; attention: the output's products are one group ; s/if (i % 2) device::products_commit/if (i == 3) device::products_commit/
sparse_wgmma.cuh ; attention: the output is not waited for ; s/device::products_wait<0>(out);//
sparse_wgmma.cuh ; attention: scores are not waited for ; s/device::products_wait<0>(s);//
sparse_wgmma.cuh ; attention: no fence before scores ; s/^      device::products_fence();//
sparse_wgmma.cuh ; attention: no fence before the output ; s/^    device::products_fence();//
sparse_wgmma.cuh ; attention: scores are not begun anew ; s/stage + at, i > 0)/stage + at, tile > begin || i > 0)/
sparse_wgmma.cuh ; attention: the last step along k is left out ; s/i < PANELS \* 4; ++i)/i < PANELS * 4 - 1; ++i)/
sparse_wgmma.cuh ; attention: both warpgroups multiply the same latent ; s/columns_at(stages + OWN_PANELS \* group \* PANEL,/columns_at(stages,/
sparse_wgmma.cuh ; attention: values go along keys in steps of 8 ; s/i \* 16 \* LINE \/ 16/i * 8 * LINE \/ 16/
sparse_wgmma.cuh ; attention: probabilities go along keys in steps of 8 ; s/p + i \* 32 \/ 16/p + i * 16 \/ 16/
sparse_wgmma.cuh ; attention: the wrong stage is multiplied ; s/uint32_t((tile - begin) % 2)/uint32_t((tile - begin + 1) % 2)/
sparse_wgmma.cuh ; attention: a tile is fetched into the wrong stage ; s/stages + (tile - begin) % 2/stages + (tile - begin + 1) % 2/
sparse_wgmma.cuh ; attention: a tile's keys are those of the one before ; s/next = keys_of(tile + 2)/next = keys_of(tile + 1)/
sparse_wgmma.cuh ; attention: half of a tile has the keys of another ; s/^    keys = next;//
sparse_wgmma.cuh ; attention: a warp's last key is not fetched ; s/i < 8 \* half + 8; ++i/i < 8 * half + 7; ++i/
sparse_wgmma.cuh ; attention: half of the rotated part is not fetched ; s/8 \* half + 4 \* group + lane/8 * half + lane/
sparse_wgmma.cuh ; attention: rows of keys are stored unswizzled ; s/place(panel, 4 \* (i % 2) + v, chunk)/(panel + (4 * (i % 2) + v) * LINE + 16 * chunk)/
sparse_wgmma.cuh ; attention: probabilities are stored unswizzled ; s/place(probabilities, 16 \* v + g + 8 \* r, n)/(probabilities + (16 * v + g + 8 * r) * LINE + 16 * n)/
sparse_wgmma.cuh ; attention: one key of the last tile too many ; s/i % 2 >= left)/i % 2 > left)/
sparse_wgmma.cuh ; attention: the last tile is taken for full ; s/if (left < BLOCK) {/if (false) {/
sparse_wgmma.cuh ; attention: fades are not given to the output ; s/fades\[16 \* v + g + 8 \* r\] = fade;/fades[16 * v + g + 8 * r] = 1.f;/
sparse_wgmma.cuh ; attention: rows g and g + 8 change fades ; s/fade\[i \/ 2 % 2\]/fade[1 - i \/ 2 % 2]/
sparse_wgmma.cuh ; attention: sums do not fade ; s/sum\[r\] \*= fade;//
sparse_wgmma.cuh ; attention: the maximum is of a part of the row ; s/^        high\[r\] = fmaxf(high\[r\], __shfl_xor_sync(~0u, high\[r\], 2));//
sparse_wgmma.cuh ; attention: the sum is of a part of the row ; s/^      sum\[r\] += __shfl_xor_sync(~0u, sum\[r\], 2);//
sparse_wgmma.cuh ; attention: parts have the maximum of another row ; s/\] = top\[r\];/] = top[1 - r];/
sparse_wgmma.cuh ; attention: the second block has the heads of the first ; s/head0 = int(blockIdx.z) \* BLOCK/head0 = 0/
sparse_mla.cu ; attention: fades are not given to the other warps ; s/fades\[16 \* m + g + 8 \* r\] = fade\[r\]/fades[16 * m + g + 8 * r] = 1.f/
sparse_mla.cu ; attention: fades are overwritten while they are read ; s/^  __syncthreads();  \/\/ nobody reads fades.*//
sparse_mla.cu ; attention: probabilities are read too early ; s/^    __syncthreads();  \/\/ probabilities.*//
sparse_mla.cu ; attention: maxima are read too early ; s/^    __syncthreads();  \/\/ maxima.*//
sparse_mla.cu ; attention: no barrier when a tile has come ; s/^    __syncthreads();  \/\/ the tile.*//
sparse_mla.cu ; attention: copies are not waited for ; s/device::copies_wait<0>/device::copies_wait<1>/
sparse_mla.cu ; attention: warps of other heads multiply the same latent ; s/warp \* O_TILES + i + lane/n * O_TILES + i + lane/
sparse_mla.cu ; attention: one key too many ; s/key < count ? s\[/key <= count ? s[/
sparse_mla.cu ; attention: held queries are another step's ; s/multiply(held\[step\], held\[step + 1\]/multiply(held[step + 1], held[step]/
END
}

total=0 survived=0
while IFS= read -r line; do
  file=${line%% ; *} rest=${line#* ; }
  what=${rest%% ; *} change=${rest#* ; }
  [[ $file ]] && grep -qiE -- "$pattern" <<<"$what" || continue
  rm -rf "$work/kernels"
  cp -r kernels "$work/kernels"
  sed -i "$change" "$work/kernels/$file"
  if diff -q "kernels/$file" "$work/kernels/$file" >/dev/null; then
    echo "error: '$what' changes nothing in kernels/$file" >&2
    exit 1
  fi
  total=$((total + 1))
  test=indexer_topk
  [[ $what != attention:* ]] || test=sparse_mla
  [[ $what != fp8:* ]] || test=fp8_dequant
  if ! g++ -std=c++17 -O1 -DINDEXSCOPE_EMULATE -w -x c++ "$work/kernels/emulate/$test.cpp" -o "$work/test" 2>"$work/log"; then
    echo "error: '$what' does not compile: $(head -1 "$work/log")" >&2
    exit 1
  fi
  case "$file $what" in
    indexer_topk.cu*mma.sync* | sparse_mla.cu*) part=mma ;;
    indexer_select.cuh*) part=selection ;;
    *) part=wgmma ;;
  esac
  # In a shell of its own, which says nothing where the test aborts.
  if bash -c "FIRST=1 timeout 300 '$work/test' $part || exit 1" >"$work/log" 2>&1; then
    printf 'SURVIVED  %s\n' "$what"
    survived=$((survived + 1))
  else
    printf 'caught    %-52s %s\n' "$what" "$(head -1 "$work/log" | cut -c1-100)"
  fi
done < <(mutants)
echo "$total mutants, $survived survived"
[[ $survived -eq 0 ]]
