#!/bin/sh
#SBATCH --job-name=featx
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#
# Extract a data set on 16 machines that share a disk, then merge their shards:
#
#     job=$(sbatch --parsable pipelines/slurm_array.sh)
#     sbatch --dependency=afterany:"$job" --wrap "featx cache merge --strict"
#
# A task that was killed goes on where it stopped: SHARDS=16 sbatch --array=7 pipelines/slurm_array.sh. Any other scheduler that
# numbers its tasks from 1 runs the one command below. SPLIT_ROWS=10000000 makes a set of files of so many images.
set -eu
: "${DATA:=photos/}" "${BACKBONE:=resnet50}" "${CACHE:=cache}" "${SHARDS:=${SLURM_ARRAY_TASK_COUNT:-16}}"
exec "${FEATX:-featx}" extract "$DATA" --backbone "$BACKBONE" --cache "$CACHE" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" \
    ${SPLIT_ROWS:+--split-rows "$SPLIT_ROWS"}
