"""What the tests of broker faults share: brokers of their own, topics, and the service on them."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import sluice

SCRIPT = sluice.ROOT / "tests" / "broker" / "broker.sh"
TOOL = sluice.BUILD / "topic_tool"
STREAMS = ("impressions", "clicks", "purchases")


class Broker:
    """Nodes of Apache Kafka in a folder of their own, which goes with them."""

    def __init__(self, nodes=1):
        self.nodes = nodes
        parent = sluice.BUILD / "e2e"
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"broker-{nodes}-", dir=parent))
        self.environment = {**os.environ, "SLUICE_BROKER_DIR": str(self.folder),
                            "SLUICE_BROKER_NODES": str(nodes), "SLUICE_BROKER_PORT": "free"}
        try:
            self.address = self.call("start").strip()
        except BaseException:
            # Nobody else knows of the nodes that are there already.
            self.remove()
            raise

    def call(self, *words):
        # Not through pipes: what it starts would keep them open.
        with tempfile.TemporaryFile("w+") as printed:
            done = subprocess.run([SCRIPT, *map(str, words)], env=self.environment, stdout=printed,
                                  timeout=sluice.TIMEOUT_S, check=False)
            printed.seek(0)
            text = printed.read()
        assert done.returncode == 0, (words, text)
        return text

    def node_folder(self, node=1):
        return self.folder if self.nodes == 1 else self.folder / str(node)

    def kill(self, node=1):
        self.call("kill-node", node)

    def stop(self, node=1):
        self.call("stop-node", node)

    def start(self, node=1):
        self.call("start-node", node)

    def signal(self, number, node=1):
        """STOP and CONT: a broker that is there but does not answer."""
        os.kill(int((self.node_folder(node) / "pid").read_text()), number)

    def remove(self):
        try:
            self.call("stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Topics:
    """A shop's three topics on a broker, under names of their own."""

    def __init__(self, address, prefix):
        self.address, self.prefix = address, prefix
        self.settings = {"source.type": '"kafka"', "source.brokers": f'"{address}"',
                         **{f"streams.{s}.topic": f'"{prefix}{s}"' for s in STREAMS}}

    def __getitem__(self, stream):
        return self.prefix + stream

    def loader(self, root, *options):
        return [str(word) for word in (sluice.LOADER, "--brokers", self.address, "--root", root,
                                       "--prefix", self.prefix, *options)]

    def load(self, root, *options):
        done = sluice.call(self.loader(root, *options))
        assert done.returncode == 0, done.stderr

    def tool(self, *words):
        done = sluice.call([TOOL, "--brokers", self.address, *words])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shape(self, stream):
        """Of each partition: the leader's node, the low and the high watermark."""
        lines = [line.split() for line in self.tool("show", self[stream]).splitlines()]
        return {int(line[0]): tuple(map(int, line[1:])) for line in lines}


class Service:
    """`sluice run` (or replay) in the background; what it says is in a file."""

    def __init__(self, words, log):
        self.log = log
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def said(self):
        return self.log.read_text()

    def wait_for(self, text, timeout_s=60):
        def is_there():
            if text in self.said():
                return True
            assert self.process.poll() is None, f"it ended without {text!r}: {self.said()[-3000:]}"
            return False
        sluice.wait_until(is_there, timeout_s, f"{text!r} in {self.said()[-3000:]}")

    def wait(self, timeout_s=60):
        """The exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.said()[-3000:]}") from None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.wait() == 0, self.said()[-3000:]

    def kill(self):
        self.process.kill()
        self.process.wait()


def segments(root, out, first, last):
    """A copy of logs that are cut into segments, with those from first to last."""
    for path in sorted(pathlib.Path(root).glob("*/*/*.jsonl")):
        if path.parts[-3] not in STREAMS:
            continue
        folder = out / path.relative_to(root).parent
        folder.mkdir(parents=True, exist_ok=True)
        if first <= int(path.name.split(".")[0]) <= last:
            shutil.copy(path, folder)
    return out


