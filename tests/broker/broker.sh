#!/usr/bin/env bash
# Apache Kafka (KRaft) on the loopback, one node or several, for tests and trials.
#
#   broker.sh start          starts what does not run yet; prints host:port[,...] once all answer
#   broker.sh stop           stops what `start` started in this folder, and waits for its end
#   broker.sh status         "running at host:port, pid N" or "stopped", a line a node; exit 1 if
#                            one is stopped
#   broker.sh start-node N   the same for one node, from 1 on; start-node prints its host:port
#   broker.sh stop-node N
#   broker.sh kill-node N    SIGKILL: as a crash would
#
#   SLUICE_BROKER_DIR    its folder: data, settings, log, pid (of several nodes: a folder each in
#                        it, named by number); default build/broker. What was acknowledged survives a
#                        stop; remove the folder for an empty broker.
#   SLUICE_BROKER_NODES  how many, default 1. With 3, topics have 3 replicas, 2 of them in sync.
#   SLUICE_BROKER_PORT   default 19092; the controller listens on the next one, further nodes on
#                        those that follow. "free": any free ones, and the same ones again when a
#                        folder's broker is started again.
#   SLUICE_BROKER_JARS   where the jars are kept between starts; default build/broker-jars
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=$(realpath -m "${SLUICE_BROKER_DIR:-$root/build/broker}")
jars=$(realpath -m "${SLUICE_BROKER_JARS:-$root/build/broker-jars}")
nodes=${SLUICE_BROKER_NODES:-1}
port=${SLUICE_BROKER_PORT:-19092}
ready_within_s=90
stopped_within_s=30
java_options=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*")

fail() {
  echo "broker: $*" >&2
  exit 1
}

node_dir() {
  if ((nodes == 1)); then echo "$dir"; else echo "$dir/$1"; fi
}

# The pid of a node, or nothing. A pid alone proves nothing (it may be another process's by now), so
# its command line must name this folder's settings.
running_pid() {
  local folder pid
  folder=$(node_dir "$1")
  pid=$(cat "$folder/pid" 2>/dev/null) || return 0
  if tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$folder/server.properties"; then
    echo "$pid"
  fi
}

address() {
  sed -n 's/^advertised\.listeners=PLAINTEXT:\/\///p' "$(node_dir "$1")/server.properties"
}

addresses() {
  local number all
  all=$(address 1)
  for ((number = 2; number <= nodes; ++number)); do all+=",$(address "$number")"; done
  echo "$all"
}

# Fetched once, by one starter at a time, into a folder that appears whole.
fetch_jars() {
  local wanted="$jars/pom.xml"
  cmp -s "$here/pom.xml" "$wanted" && return
  command -v mvn >/dev/null || fail "Maven is missing: ./dev setup broker"
  rm -rf "$jars"
  mkdir -p "$jars"
  echo "broker: fetching the jars of Apache Kafka (once, 44 MB)" >&2
  mvn -q -B -Dstyle.color=never -f "$here/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$jars" -DincludeScope=runtime >&2 || fail "Maven could not fetch the jars"
  cp "$here/pom.xml" "$wanted"
}

# The first of so many free ports in a row.
free_ports() {
  python3 - "$1" <<'PY'
import socket
import sys

while True:
    sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
    try:
        sockets[0].bind(("127.0.0.1", 0))
        port = sockets[0].getsockname()[1]
        for offset, following in enumerate(sockets):
            if offset > 0:
                following.bind(("127.0.0.1", port + offset))
        print(port)
        break
    except (OSError, OverflowError):
        pass
    finally:
        for each in sockets:
            each.close()
PY
}

write_settings() {
  local number=$1 folder node_port voter voters="" in_sync=1
  folder=$(node_dir "$number")
  node_port=$((port + 2 * number - 2))
  for ((voter = 1; voter <= nodes; ++voter)); do
    voters+="${voters:+,}$voter@127.0.0.1:$((port + 2 * voter - 1))"
  done
  if ((nodes > 2)); then in_sync=2; fi
  cat >"$folder/server.properties" <<EOF
process.roles=broker,controller
node.id=$number
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:$node_port,CONTROLLER://127.0.0.1:$((node_port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$node_port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$folder/data
auto.create.topics.enable=false
default.replication.factor=$nodes
min.insync.replicas=$in_sync
offsets.topic.num.partitions=4
offsets.topic.replication.factor=$nodes
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
EOF
}

# Jars, settings and a formatted log folder for every node.
prepare() {
  local number folder cluster
  command -v java >/dev/null || fail "Java is missing: ./dev setup broker"
  (
    flock 9
    fetch_jars
  ) 9>"$jars.lock"
  if [[ $port == free && -e $(node_dir 1)/server.properties ]]; then
    port=$(address 1)
    port=${port##*:}
  elif [[ $port == free ]]; then
    port=$(free_ports $((2 * nodes)))
  fi
  cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d '=')
  for ((number = 1; number <= nodes; ++number)); do
    if [[ -n $(running_pid "$number") ]]; then continue; fi
    folder=$(node_dir "$number")
    mkdir -p "$folder"
    write_settings "$number"
    if [[ -e $folder/data/meta.properties ]]; then continue; fi
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "${java_options[@]}" kafka.tools.StorageTool \
      format -t "$cluster" -c "$folder/server.properties" >"$folder/format.log" 2>&1 \
      || fail "formatting failed: $(tail -n 1 "$folder/format.log")"
  done
}

launch() {
  local number=$1 folder memory_mb=512
  if [[ -n $(running_pid "$number") ]]; then return; fi
  folder=$(node_dir "$number")
  if ((nodes > 1)); then memory_mb=300; fi
  : >"$folder/broker.log"
  # Its own session, and no descriptor of the starter's: it must outlive a terminal or a pipe.
  setsid java "-Xmx${memory_mb}m" -XX:+UseSerialGC \
    -Dorg.slf4j.simpleLogger.log.kafka.server=info \
    "${java_options[@]}" kafka.Kafka "$folder/server.properties" \
    >"$folder/broker.log" 2>&1 </dev/null &
  echo "$!" >"$folder/pid"
}

wait_until_ready() {
  local folder pid deadline
  folder=$(node_dir "$1")
  pid=$(cat "$folder/pid")
  deadline=$((SECONDS + ready_within_s))
  until grep -q "Kafka Server started" "$folder/broker.log"; do
    kill -0 "$pid" 2>/dev/null || fail "it ended at once; see $folder/broker.log"
    if ((SECONDS > deadline)); then
      kill -KILL "$pid"
      fail "not ready within $ready_within_s s; see $folder/broker.log"
    fi
    sleep 0.1
  done
}

start() {
  local number
  prepare
  for ((number = 1; number <= nodes; ++number)); do launch "$number"; done
  for ((number = 1; number <= nodes; ++number)); do wait_until_ready "$number"; done
  addresses
}

start_node() {
  [[ -e $(node_dir "$1")/data/meta.properties ]] || fail "node $1 was not made: broker.sh start"
  launch "$1"
  wait_until_ready "$1"
  address "$1"
}

signal_node() {
  local pid
  pid=$(running_pid "$2")
  if [[ -n $pid ]]; then kill "-$1" "$pid"; fi
}

wait_until_ended() {
  local number=$1 pid deadline=$((SECONDS + stopped_within_s))
  while pid=$(running_pid "$number") && [[ -n $pid ]]; do
    if ((SECONDS > deadline)); then kill -KILL "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
  rm -f "$(node_dir "$number")/pid"
}

stop() {
  local number
  # All at once: the last ones would wait for the quorum that the first ones were.
  for ((number = 1; number <= nodes; ++number)); do signal_node TERM "$number"; done
  for ((number = 1; number <= nodes; ++number)); do wait_until_ended "$number"; done
}

status() {
  local number pid stopped=0
  for ((number = 1; number <= nodes; ++number)); do
    pid=$(running_pid "$number")
    if [[ -z $pid ]]; then
      echo "stopped"
      stopped=1
    else
      echo "running at $(address "$number"), pid $pid"
    fi
  done
  return "$stopped"
}

verb=${1:-}
node=${2:-}
case $verb in
  *-node)
    if ! [[ $node =~ ^[1-9]$ ]] || ((node > nodes)); then fail "$verb: which node, 1 to $nodes?"; fi
    ;;
esac
mkdir -p "$(dirname "$jars")"
case $verb in
  start) start ;;
  stop) stop ;;
  status) status ;;
  start-node) start_node "$node" ;;
  stop-node)
    signal_node TERM "$node"
    wait_until_ended "$node"
    ;;
  kill-node)
    signal_node KILL "$node"
    wait_until_ended "$node"
    ;;
  *) fail "usage: broker.sh start|stop|status, start-node|stop-node|kill-node N" ;;
esac
