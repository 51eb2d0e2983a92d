#!/usr/bin/env bash
# One node of Apache Kafka (KRaft) on the loopback, for tests and trials.
#
#   broker.sh start    starts it where it does not run yet; prints host:port once it answers
#   broker.sh stop     stops the one that `start` started in this folder, and waits for its end
#   broker.sh status   "running at host:port, pid N" (exit 0) or "stopped" (exit 1)
#
#   SLUICE_BROKER_DIR    its folder: data, settings, log, pid; default build/broker. What was
#                        acknowledged survives a stop; remove the folder for an empty broker.
#   SLUICE_BROKER_PORT   default 19092; the controller listens on the next one. "free": any free
#                        two, and the same ones again when a folder's broker is started again.
#   SLUICE_BROKER_JARS   where the jars are kept between starts; default build/broker-jars
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=$(realpath -m "${SLUICE_BROKER_DIR:-$root/build/broker}")
jars=$(realpath -m "${SLUICE_BROKER_JARS:-$root/build/broker-jars}")
port=${SLUICE_BROKER_PORT:-19092}
ready_within_s=90
stopped_within_s=30

fail() {
  echo "broker: $*" >&2
  exit 1
}

# The pid of this folder's broker, or nothing. A pid alone proves nothing (it may be another
# process's by now), so its command line must name this folder's settings.
running_pid() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) || return 0
  if tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$dir/server.properties"; then
    echo "$pid"
  fi
}

address() {
  sed -n 's/^advertised\.listeners=PLAINTEXT:\/\///p' "$dir/server.properties"
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

free_port_pair() {
  python3 - <<'PY'
import socket
while True:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            continue
        print(port)
        break
PY
}

write_settings() {
  local controller=$((port + 1))
  cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
EOF
}

start() {
  if [[ -n $(running_pid) ]]; then
    address
    return
  fi
  command -v java >/dev/null || fail "Java is missing: ./dev setup broker"
  mkdir -p "$dir"
  (
    flock 9
    fetch_jars
  ) 9>"$jars.lock"
  if [[ $port == free && -e $dir/server.properties ]]; then
    port=$(address)
    port=${port##*:}
  elif [[ $port == free ]]; then
    port=$(free_port_pair)
  fi
  write_settings
  local java_options=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*")
  if [[ ! -e $dir/data/meta.properties ]]; then
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "${java_options[@]}" kafka.tools.StorageTool \
      format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 \
      || fail "formatting failed: $(tail -n 1 "$dir/format.log")"
  fi
  : >"$dir/broker.log"
  # Its own session, and no descriptor of the starter's: it must outlive a terminal or a pipe.
  setsid java -Xmx512m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.log.kafka.server=info \
    "${java_options[@]}" kafka.Kafka "$dir/server.properties" \
    >"$dir/broker.log" 2>&1 </dev/null 9>&- &
  local pid=$!
  echo "$pid" >"$dir/pid"
  local deadline=$((SECONDS + ready_within_s))
  until grep -q "Kafka Server started" "$dir/broker.log"; do
    kill -0 "$pid" 2>/dev/null || fail "it ended at once; see $dir/broker.log"
    if ((SECONDS > deadline)); then
      kill -KILL "$pid"
      fail "not ready within $ready_within_s s; see $dir/broker.log"
    fi
    sleep 0.1
  done
  address
}

stop() {
  local pid
  pid=$(running_pid)
  if [[ -n $pid ]]; then
    kill -TERM "$pid"
    local deadline=$((SECONDS + stopped_within_s))
    while [[ -n $(running_pid) ]]; do
      if ((SECONDS > deadline)); then kill -KILL "$pid" 2>/dev/null || true; fi
      sleep 0.1
    done
  fi
  rm -f "$dir/pid"
}

status() {
  local pid
  pid=$(running_pid)
  if [[ -z $pid ]]; then
    echo "stopped"
    return 1
  fi
  echo "running at $(address), pid $pid"
}

mkdir -p "$(dirname "$jars")"
case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) fail "usage: broker.sh start|stop|status" ;;
esac
