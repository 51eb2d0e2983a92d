"""What the tests of serving share: a server process, requests to it, a shop to serve."""

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time

import sluice

# The shop's features: where each lies in an impression.
FEATURES = {
    "user": "user_id", "item": "item_id", "segment": "features.user.segment",
    "country": "features.user.country", "age": "features.user.age",
    "interests": "features.user.interests", "brands": "features.user.brands",
    "device": "features.context.device", "surface": "features.context.surface",
    "hour": "features.context.hour", "category": "features.item.category",
    "brand": "features.item.brand", "price": "features.item.price",
    "quality": "features.item.quality", "position": "features.position",
}
NUMBERS = {"age", "price", "quality"}
LISTS = {"interests", "brands"}
RATES = ("pctr", "pcvr", "pctcvr")


def make_snapshots(folder, impressions=20_000, every='"1 h"', settings=None):
    """A shop that was learned from; returns its config, data folder and model's name."""
    config = sluice.generate(folder / "shop", "--impressions", impressions, "--seed", "5")
    data = folder / "data"
    words = sluice.command("replay", config, data, {
        "snapshots.every": every, "snapshots.keep": 1000, **(settings or {})})
    done = sluice.call(words)
    assert done.returncode == 0, done.stderr
    model = next((data / "models").iterdir()).name
    return config, data, model


def read_impressions(config, limit=None):
    """Lines of the shop's impressions, as they stand in its logs."""
    lines = []
    for path in sorted((config.parent / "impressions").iterdir()):
        lines += path.read_text().splitlines()
    return lines[:limit]


def row_of(line):
    """An impression of the log as a row of features by name."""
    event = json.loads(line)
    row = {"impression_id": event["impression_id"]}
    for name, path in FEATURES.items():
        value = event
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            row[name] = value
    return row


def inputs_of(rows):
    """Rows as tensors of the Open Inference Protocol, one a feature."""
    inputs = []
    for name in ["impression_id", *FEATURES]:
        values = [row.get(name) for row in rows]
        if name in NUMBERS:
            datatype = "FP64"
        elif name in LISTS:
            datatype, values = "BYTES", [json.dumps(value) for value in values]
        elif all(isinstance(value, int) for value in values):
            datatype = "INT64"
        else:
            datatype, values = "BYTES", [None if v is None else str(v) for v in values]
        inputs.append({"name": name, "shape": [len(rows)], "datatype": datatype, "data": values})
    return inputs


def snapshots_of(data, model):
    parent = data / "models" / model / "snapshots"
    return sorted(path for path in parent.iterdir() if path.name.isdigit())


def set_latest(parent, name):
    """As the learner does: in one step."""
    (parent / "LATEST.new").write_text(name + "\n")
    (parent / "LATEST.new").rename(parent / "LATEST")


class Server:
    """`sluice serve` on a free port; ends with the `with` block."""

    def __init__(self, *arguments, settings=None, environment=None, tls=None):
        words = [sluice.BINARY, "serve", *arguments, "--set", "serving.port=0"]
        for key, value in (settings or {}).items():
            words += ["--set", f"{key}={value}"]
        self.tls = tls
        self.process = subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})})
        line = self.process.stdout.readline()
        if " at http" not in line:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not start: {line}{self.process.stderr.read()}")
        self.url = line.split(" at ")[1].strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def connect(self, timeout=60):
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout,
                                               context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def request(self, method, path, body=None, headers=None, connection=None):
        """Status, and what the body says in JSON (else its text)."""
        own = connection or self.connect()
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            own.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            answer = own.getresponse()
            text = answer.read().decode()
        finally:
            if connection is None:
                own.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def wait_ready(self, timeout=60):
        sluice.wait_until(lambda: self.get("/v2/health/ready")[0] == 200, timeout, "ready")
        return self

    def metrics(self, headers=None):
        """Name with labels -> value."""
        text = self.get("/metrics", headers)[1]
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def terminate(self, timeout=60):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def scores_of_verb(data, lines, extra=()):
    """What `sluice score` says of the lines."""
    done = subprocess.run([str(sluice.BINARY), "score", str(data), *extra], input="\n".join(lines) + "\n",
                          capture_output=True, text=True, check=True, timeout=sluice.TIMEOUT_S)
    return [json.loads(line) for line in done.stdout.splitlines()]


def make_certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def copy_snapshots(snapshots, parent):
    parent.mkdir(parents=True, exist_ok=True)
    for snapshot in snapshots:
        shutil.copytree(snapshot, parent / snapshot.name)
    return parent


def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate))


def sleep_until(end):
    time.sleep(max(0.0, end - time.monotonic()))
