#!/usr/bin/env bash
# Two nodes on one machine: network namespaces that see each other over a veth pair and share the disk.
#
#     sudo benchmarks/cluster.sh [WORK]        # needs root, ip (iproute2), Java 17, and .venv of `make test-cluster`
#
# torchrun on two nodes, Ray with two nodes of which one is killed, Spark with a master and two workers; each against one
# node. It ends what it started, by process id, and takes its namespaces and, unless WORK is given, its
# folder away. Each step has 600 seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD bin=$PWD/.venv/bin
[ "$(id -u)" = 0 ] || { echo "benchmarks/cluster.sh needs root: it makes network namespaces" >&2; exit 2; }
work=${1:-$(mktemp -d -t smar-cluster-XXXX)}
mkdir -p "$work"
a=smar-a-$$ b=smar-b-$$ ip_a=10.213.7.1 ip_b=10.213.7.2
pids=()

group() { kill -"$1" -- "-$2" 2>/dev/null || true; }
clean() {
    status=$?
    for pid in "${pids[@]}"; do group TERM "$pid"; done
    sleep 1
    for pid in "${pids[@]}"; do group KILL "$pid"; done
    for name in "$a" "$b"; do
        for pid in $(ip netns pids "$name" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done  # ours: our names
        ip netns del "$name" 2>/dev/null || true
    done
    [ "$given" ] || rm -rf "$work"
    exit "$status"
}
given=${1:-}
trap clean EXIT
trap 'exit 130' INT TERM

export PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_USAGE_STATS_ENABLED=0
export SPARK_DAEMON_MEMORY=256m PYSPARK_PYTHON=$bin/python
export SPARK_HOME=$("$bin/python" -c 'import pyspark; print(pyspark.__path__[0])')

on() { ip netns exec "$1" "${@:2}"; }
smar() { timeout 600 "$bin/python" -m smar "$@"; }
start() {  # NODE LOG WORDS...: in a process group of its own, which clean() ends
    setsid ip netns exec "$1" "${@:3}" >"$work/$2.log" 2>&1 &
    pids+=($!)
}
await() {  # WHAT COMMAND...: until the command succeeds
    for _ in $(seq 240); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.5; done
    echo "$1 did not come up within 120 s; see $work" >&2
    return 1
}
said() { printf '%-58s %s\n' "$1" "$2"; }
timed() { local from=$EPOCHREALTIME; "${@:2}"; said "$1" "$(awk "BEGIN { printf \"%.1f s\", $EPOCHREALTIME - $from }")"; }
logged() { "${@:2}" >"$work/$1.out" 2>&1 || { tail -30 "$work/$1.out" >&2; return 1; }; }
equal() { diff -rq "${@:2}" >&2 && said "$1" "equal, byte for byte"; }

for name in "$a" "$b"; do ip netns add "$name"; ip -n "$name" link set lo up; done
ip link add veth0 netns "$a" type veth peer name veth0 netns "$b"
ip -n "$a" addr add "$ip_a/24" dev veth0 && ip -n "$a" link set veth0 up
ip -n "$b" addr add "$ip_b/24" dev veth0 && ip -n "$b" link set veth0 up
on "$a" ping -c 1 -W 5 "$ip_b" >/dev/null 2>&1 || on "$a" "$bin/python" - "$ip_b" <<'PY'
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 5)
except ConnectionRefusedError:
    pass  # it is there, and nothing listens
PY
said "two namespaces, veth" "$ip_a and $ip_b reach each other"

logged shop "$bin/python" - "$work" <<'PY'
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from tiny_line import prepare_shop
done = prepare_shop(Path(sys.argv[1]), items=12_500, searches=8_000)
sys.exit(done.err if done.code else 0)
PY
tables=(--items "$work/shop/items.parquet" --clicks "$work/shop/clicks.parquet" --queries "$work/shop/queries.parquet")
said "generated shop" "12,500 items, 8,000 searches"

# --- torchrun: one process on each node, against two processes on one node ----------------------------------------------
train=(-m smar train "$work/dataset" --config "$work/tiny.yaml" --set "train.baselines=[]")
torchrun=("$bin/python" -m torch.distributed.run)
one_node() {
    on "$a" timeout 600 "${torchrun[@]}" --nnodes 1 --nproc-per-node 2 --node-rank 0 --master-addr 127.0.0.1 \
        --master-port 29511 "${train[@]}" --out "$work/run-one"
}
on_node() {  # NODE RANK
    GLOO_SOCKET_IFNAME=veth0 on "$1" timeout 600 "${torchrun[@]}" --nnodes 2 --nproc-per-node 1 --node-rank "$2" \
        --master-addr "$ip_a" --master-port 29512 "${train[@]}" --out "$work/run"
}
two_nodes() {
    on_node "$b" 1 >"$work/torchrun-b.log" 2>&1 &
    local other=$!
    on_node "$a" 0
    wait "$other"
}
timed "torchrun, one node, two processes: smar train" logged torchrun-one one_node
timed "torchrun, two nodes, a process each: smar train" logged torchrun-two two_nodes
for stage in stage1 stage2; do
    equal "torchrun: weights of $stage" "$work/run-one/$stage/model.safetensors" "$work/run/$stage/model.safetensors"
done

# --- Ray: a head on node a and a node b, which is killed while shards are made ------------------------------------------
timed "one process: smar embed" logged embed smar embed "$work/run" "$work/dataset" --out "$work/embeddings" --device cpu
ray=("$bin/ray" start --num-cpus 1 --object-store-memory 100000000 --block)
start "$a" ray-head "${ray[@]}" --head --node-ip-address "$ip_a" --port 6379 --include-dashboard false --temp-dir "$work/ray"
await "Ray's head" on "$a" bash -c "</dev/tcp/$ip_a/6379"
start "$b" ray-node "${ray[@]}" --address "$ip_a:6379" --node-ip-address "$ip_b"
node_b=${pids[-1]}
await "Ray's second node" grep -q "Ray runtime started" "$work/ray-node.log"
with_ray() { RAY_ADDRESS=$ip_a:6379 on "$a" timeout 600 "$bin/python" -m smar "$@" --runner ray --device cpu; }
killed() {
    with_ray embed "$work/run" "$work/dataset" --out "$work/embeddings-ray" &
    local embed=$!
    await "the first shard" compgen -G "$work/embeddings-ray/shard-*.parquet"
    group KILL "$node_b"
    for pid in $(ip netns pids "$b"); do kill -KILL "$pid"; done  # as if its power were gone
    kill -0 "$embed" && echo "killed node b while shards were made: $(ls "$work"/embeddings-ray/shard-*.parquet | wc -l) there"
    wait "$embed"
}
timed "Ray, two nodes, one killed: smar embed" logged ray killed
said "Ray" "$(grep "killed node b" "$work/ray.out")"
# the tokenizer's file keeps the length it was cut to last, which is an item's where items were encoded
equal "Ray: shards, items, pictures, manifest" -x query "$work/embeddings" "$work/embeddings-ray"
timed "one process: smar evaluate" logged evaluate smar evaluate "$work/run" "$work/dataset" --out "$work/report" --device cpu
timed "Ray: smar evaluate" logged evaluate-ray with_ray evaluate "$work/run" "$work/dataset" --out "$work/report-ray"
equal "Ray: metrics of the report" "$work/report/metrics.json" "$work/report-ray/metrics.json"
for pid in "${pids[@]}"; do group TERM "$pid"; done

# --- Spark: master and worker on node a, a worker on node b, the driver on node a ---------------------------------------
java=("$bin/spark-class")
start "$a" spark-master "${java[@]}" org.apache.spark.deploy.master.Master --host "$ip_a" --port 7077 --webui-port 8081
await "Spark's master" on "$a" bash -c "</dev/tcp/$ip_a/7077"
for node in a b; do
    host=ip_$node
    mkdir -p "$work/spark-$node"
    start "${!node}" "spark-worker-$node" "${java[@]}" org.apache.spark.deploy.worker.Worker "spark://$ip_a:7077" \
        --host "${!host}" --cores 1 --memory 1g --work-dir "$work/spark-$node"
done
for node in a b; do await "Spark's worker $node" grep -q "Successfully registered" "$work/spark-worker-$node.log"; done
mkdir -p "$work/spark-conf"
cat >"$work/spark-conf/spark-defaults.conf" <<CONF
spark.driver.host $ip_a
spark.driver.memory 1g
spark.executor.memory 700m
spark.sql.shuffle.partitions 4
CONF
prepared() {
    SPARK_CONF_DIR=$work/spark-conf SPARK_LOCAL_IP=$ip_a on "$a" timeout 600 "$bin/python" -m smar prepare "${tables[@]}" \
        --config "$work/tiny.yaml" --out "$work/dataset-spark" --engine spark --spark-master "spark://$ip_a:7077"
}
timed "Spark, master and two workers: smar prepare" logged spark prepared
executors=$(find "$work"/spark-a "$work"/spark-b -name stderr | wc -l)
said "Spark: executors that were started" "$executors on two nodes"
"$bin/python" - "$work" <<'PY'
import sys
from pathlib import Path
from smar.data.dataset import Dataset
duck, spark = (Dataset.open(Path(sys.argv[1]) / name) for name in ("dataset", "dataset-spark"))
for part in ("train", "valid", "test"):
    assert duck.pairs(part).to_pydict() == spark.pairs(part).to_pydict(), part  # Spark does not mark what holds no null
assert duck.qrels().to_pydict() == spark.qrels().to_pydict()
rows = sum(len(duck.pairs(part)) for part in ("train", "valid", "test"))
print(f"{'Spark: pairs and qrels against DuckDB':<58} equal, {rows:,} pairs")
PY

said "all" "passed"
