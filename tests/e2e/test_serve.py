"""`sluice serve`: both protocols, the same bits as `sluice score`, swaps under load, and what goes
wrong: bad requests, damaged snapshots, kills."""

import concurrent.futures
import gzip
import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import serving
import sluice

TOKEN = "a-token-of-the-test-0123456789"


class ServeCase(sluice.Case):
    """One shop for all tests of a class; what is served is each test's own copy."""

    @classmethod
    def setUpClass(cls):
        parent = sluice.BUILD / "e2e"
        parent.mkdir(parents=True, exist_ok=True)
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="serve-", dir=parent))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        cls.config, cls.data, cls.model = serving.make_snapshots(cls.shared, 20_000, '"6 h"')
        cls.lines = serving.read_impressions(cls.config)
        cls.snapshots = serving.snapshots_of(cls.data, cls.model)
        assert len(cls.snapshots) > 4

    def copy(self, count):
        """A folder of the first `count` snapshots; LATEST names the last of them."""
        chosen = self.snapshots[:count]
        parent = serving.copy_snapshots(chosen, self.folder / "m" / "snapshots")
        serving.set_latest(parent, chosen[-1].name)
        return parent


class ProtocolsTest(ServeCase):
    def setUp(self):
        super().setUp()
        self.server = serving.Server(self.config, "--data-dir", self.data).wait_ready()
        self.addCleanup(self.server.__exit__)
        self.path = f"/v2/models/{self.model}"
        self.predict = f"/v1/models/{self.model}:predict"

    def test_scores_are_the_bits_of_sluice_score(self):
        lines = self.lines[:10_000]
        expected = serving.scores_of_verb(self.data, lines)
        v1, v2, events = [], [], []
        connection = self.server.connect()
        for begin in range(0, len(lines), 500):
            rows = [serving.row_of(line) for line in lines[begin:begin + 500]]
            status, answer = self.server.request("POST", self.predict, {"instances": rows},
                                                 connection=connection)
            self.assertEqual(status, 200, answer)
            v1 += answer["predictions"]
            status, answer = self.server.request(
                "POST", self.path + "/infer", {"inputs": serving.inputs_of(rows)},
                connection=connection)
            self.assertEqual(status, 200, answer)
            columns = {output["name"]: output["data"] for output in answer["outputs"]}
            v2 += [dict(zip(columns, values)) for values in zip(*columns.values())]
            status, answer = self.server.request(
                "POST", self.predict, '{"instances": [' + ",".join(lines[begin:begin + 500]) + "]}",
                connection=connection)
            self.assertEqual(status, 200, answer)
            events += answer["predictions"]
        connection.close()
        for name, answers in (("rows", v1), ("tensors", v2), ("events", events)):
            self.assertEqual(len(answers), len(expected))
            for line, (answer, wanted) in enumerate(zip(answers, expected)):
                for rate in serving.RATES:
                    self.assertEqual(answer[rate], wanted[rate], f"{name}, line {line}, {rate}")
        self.assertGreater(len({score["pctr"] for score in expected}), 5_000)

    def test_metadata(self):
        status, server = self.server.get("/v2")
        self.assertEqual((status, server["name"]), (200, "sluice"))
        status, model = self.server.get(self.path)
        self.assertEqual(status, 200)
        inputs = {one["name"]: one for one in model["inputs"]}
        self.assertEqual(set(inputs), set(serving.FEATURES))
        self.assertEqual(inputs["user"]["datatype"], "BYTES")
        self.assertEqual(inputs["price"], {"name": "price", "datatype": "FP64", "shape": [-1]})
        self.assertEqual(inputs["interests"]["shape"], [-1, -1])
        self.assertEqual([one["name"] for one in model["outputs"]], list(serving.RATES))
        self.assertEqual(model["versions"], [str(int(path.name)) for path in self.snapshots])
        self.assertEqual(self.server.get("/v2/health/live")[0], 200)
        self.assertEqual(self.server.get(self.path + "/ready"),
                         (200, {"name": self.model, "ready": True}))
        status, answer = self.server.get(f"/v1/models/{self.model}")
        self.assertEqual(answer["model_version_status"][0]["state"], "AVAILABLE")

    def test_versions_side_by_side(self):
        rows = [serving.row_of(line) for line in self.lines[:5]]
        for path in (self.snapshots[0], self.snapshots[2], self.snapshots[-1]):
            number = int(path.name)
            expected = serving.scores_of_verb(path, self.lines[:5])
            status, answer = self.server.post(f"/v1/models/{self.model}/versions/{number}:predict",
                                              {"instances": rows})
            self.assertEqual(status, 200, answer)
            for got, wanted in zip(answer["predictions"], expected):
                self.assertEqual(got, {rate: wanted[rate] for rate in serving.RATES})
            status, answer = self.server.post(f"{self.path}/versions/{number}/infer", {
                "id": "a \"request\"", "inputs": serving.inputs_of(rows),
                "outputs": [{"name": "pctcvr"}]})
            self.assertEqual(status, 200, answer)
            self.assertEqual((answer["id"], answer["model_version"]), ("a \"request\"", str(number)))
            self.assertEqual(answer["outputs"], [{
                "name": "pctcvr", "datatype": "FP64", "shape": [5],
                "data": [wanted["pctcvr"] for wanted in expected]}])

    def test_shapes_and_types_mean_what_they_mean_in_the_log(self):
        def infer(*inputs):
            status, answer = self.server.post(self.path + "/infer", {"inputs": list(inputs)})
            self.assertEqual(status, 200, answer)
            return answer["outputs"]

        def predict(**row):
            status, answer = self.server.post(self.predict, {"instances": [row]})
            self.assertEqual(status, 200, answer)
            return [answer["predictions"][0][rate] for rate in serving.RATES]

        user = json.loads(self.lines[0])["user_id"]
        self.assertNotEqual(predict(user=user), predict())
        self.assertEqual(predict(hour=5), predict(hour="5"))
        self.assertEqual(predict(user=None), predict())
        self.assertEqual(predict(price="12"), predict())  # of a wrong type: absent, as in the log
        text = {"name": "hour", "datatype": "BYTES", "shape": [2, 1], "data": [["5"], ["6"]]}
        number = {"name": "hour", "datatype": "INT32", "shape": [2], "data": [5, 6]}
        self.assertEqual([one["data"] for one in infer(text)], [one["data"] for one in infer(number)])
        self.assertEqual(infer(text)[0]["shape"], [2, 1])
        self.assertEqual(infer(number)[0]["data"][1], predict(hour=6)[0])
        as_json = {"name": "interests", "datatype": "BYTES", "shape": [1], "data": ["[\"3\", 4]"]}
        as_list = {"name": "interests", "datatype": "BYTES", "shape": [1, 2], "data": ["3", "4"]}
        self.assertEqual(infer(as_json), infer(as_list))
        self.assertEqual(infer(as_json)[0]["data"][0], predict(interests=[3, 4])[0])

    def test_what_is_refused(self):
        infer = self.path + "/infer"
        instance = lambda value: {"instances": [{}, value]}
        one = lambda **tensor: {"inputs": [{"name": "hour", "shape": [1], "datatype": "INT64",
                                            "data": [5], **tensor}]}
        cases = [
            ("POST", self.predict, "{", 400, "no valid JSON"),
            ("POST", self.predict, "[" * 5000, 400, "no valid JSON"),
            ("POST", self.predict, "{}", 400, "instances"),
            ("POST", self.predict, {"inputs": {}}, 400, "instances"),
            ("POST", self.predict, {"instances": []}, 400, "no instances"),
            ("POST", self.predict, instance(3), 400, "instance 1: is no object"),
            ("POST", self.predict, instance({"usr": 1}), 400, "did you mean \"user\""),
            ("POST", self.predict, instance({"impression_id": 1.5}), 400, "impression_id"),
            ("POST", self.predict, '{"instances": [{"hour": 1, "hour": 2}]}', 400, "twice"),
            ("POST", self.predict, instance({"ts": "x", "impression_id": "i"}), 400, "instance 1"),
            ("POST", self.predict, {"instances": [{}] * 10_001}, 413, "max_rows"),
            ("POST", infer, "nonsense", 400, "no valid JSON"),
            ("POST", infer, {"inputs": []}, 400, "no impressions"),
            ("POST", infer, one(name="hours"), 400, "did you mean \"hour\""),
            ("POST", infer, one(shape=[2]), 400, "as its shape says"),
            ("POST", infer, one(shape=[1, 1, 1]), 400, "two dimensions"),
            ("POST", infer, one(shape=[1, 2], data=[1, 2]), 400, "[n] or [n,1]"),
            ("POST", infer, one(shape=[0], data=[]), 400, "no impressions"),
            ("POST", infer, one(shape=[-1]), 400, "sizes"),
            ("POST", infer, one(shape=[2**63], data=[]), 413, "max_rows"),
            ("POST", infer, one(shape=[1, 2**63], data=[]), 413, "elements"),
            ("POST", infer, one(datatype="FP16"), 400, "not supported"),
            ("POST", infer, one(datatype="FP32"), 400, "no ids"),
            ("POST", infer, one(datatype="BYTES"), 400, "BYTES elements"),
            ("POST", infer, one(datatype="INT8", data=[200]), 400, "INT8 elements"),
            ("POST", infer, one(name="price", datatype="BYTES", data=["1"]), 400, "no numbers"),
            ("POST", infer, one(name="brands"), 400, "list"),
            ("POST", infer, one(name="brands", datatype="BYTES", data=["{"]), 400, "element 0"),
            ("POST", infer, {"inputs": one()["inputs"] * 2}, 400, "twice"),
            ("POST", infer, {**one(), "outputs": [{"name": "x"}]}, 400, "outputs are"),
            ("POST", infer, {**one(), "id": 7}, 400, "\"id\""),
            ("POST", f"{self.path}/versions/7/infer", one(), 404, "there is no version 7"),
            ("POST", f"{self.path}/versions/x/infer", one(), 404, "sequence number"),
            ("POST", "/v2/models/other/infer", one(), 404, self.model),
            ("POST", f"/v1/models/{self.model}/labels/none:predict", {}, 404, "alias"),
            ("POST", f"/v1/models/{self.model}/labels/..%2f..:predict", {}, 404, ""),
            ("GET", infer, None, 405, "POST"),
            ("PUT", self.predict, "{}", 405, "POST"),
            ("DELETE", "/v2", None, 405, "GET"),
            ("POST", "/v2/health/live", "{}", 405, "GET"),
            ("GET", "/", None, 404, "docs"),
            ("GET", "/v2/models", None, 404, ""),
            ("GET", "/v1/models/" + "x" * 3000, None, 414, "path"),
        ]
        for method, path, body, status, part in cases:
            with self.subTest(method=method, path=path, body=str(body)[:60]):
                got, answer = self.server.request(method, path, body)
                self.assertEqual(got, status, answer)
                self.assertEqual(list(answer), ["error"])
                self.assertIn(part, answer["error"])
        for headers, status in (({"Content-Type": "text/xml"}, 415),
                                ({"Content-Type": "application/json; charset=utf-8"}, 200),
                                ({"Content-Encoding": "gzip"}, 400),
                                ({"Inference-Header-Content-Length": "x"}, 400)):
            got, answer = self.server.post(self.predict, {"instances": [{}]}, headers)
            self.assertEqual(got, status, (headers, answer))
        self.assertEqual(self.server.get("/v2/health/live")[0], 200)

    def test_bodies_are_bounded_however_they_come(self):
        big = b'{"instances": [{}' + b" " * (9 << 20) + b"]}"
        for body, headers in ((big, {}), (gzip.compress(big), {"Content-Encoding": "gzip"})):
            status, answer = self.server.post(self.predict, body, headers)
            self.assertEqual(status, 413, answer)
        parts = iter([big[i:i + 65536] for i in range(0, len(big), 65536)])
        connection = self.server.connect()
        try:
            connection.request("POST", self.predict, parts, {"Content-Type": "application/json"},
                               encode_chunked=True)
            status = connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):
            status = 413  # it closed while the rest was on its way
        self.assertEqual(status, 413)
        connection.close()
        small = gzip.compress(b'{"instances": [{}]}')
        status, answer = self.server.post(self.predict, small, {"Content-Encoding": "gzip"})
        self.assertEqual(status, 200, answer)
        self.assertLess(sluice.peak_memory(self.server.process.pid), 1 << 30)

    def raw(self, text, timeout=20):
        """What comes back for these bytes until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout) as stream:
            stream.sendall(text)
            got = b""
            while part := stream.recv(65536):
                got += part
            return got

    def test_bytes_that_are_no_request(self):
        close = b"Connection: close\r\n"
        self.assertIn(b" 400 ", self.raw(b"nonsense\r\n\r\n"))
        self.assertIn(b" 431 ", self.raw(b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"))
        self.assertIn(b" 411 ", self.raw(b"POST /v2 HTTP/1.1\r\n" + close + b"\r\n"))
        post = b"POST " + self.predict.encode() + b" HTTP/1.1\r\n"
        for head in (b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Content-Length: x\r\n",
                     b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"):
            # What stands behind is not taken for a second request.
            answer = self.raw(post + head + b"\r\n{}GET /v2 HTTP/1.1\r\n\r\n")
            self.assertIn(b" 400 ", answer)
            self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        # A length without an end, and a part that is longer than it says.
        self.assertIn(b" 400 ", self.raw(post + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"))
        expect = post + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"
        self.assertIn(b" 413 ", self.raw(expect))
        # Two requests at once on one connection are answered in their order.
        body = b'{"instances": [{}]}'
        one = post + b"Content-Length: %d\r\n" % len(body)
        answer = self.raw(one + b"\r\n" + body + one + close + b"\r\n" + body)
        self.assertEqual(answer.count(b" 200 OK"), 2)

    def test_idle_connections_hold_up_nobody(self):
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(300)]
        for stream in idle[:100]:
            stream.sendall(b"GET /v2 HTTP/1.1\r\nHos")  # and no more
        begin = time.monotonic()
        for _ in range(20):
            self.assertEqual(self.server.post(self.predict, {"instances": [{}]})[0], 200)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertGreaterEqual(self.server.metrics()["sluice_connections"], 300)
        for stream in idle:
            stream.close()

    def test_metrics(self):
        self.server.post(self.predict, {"instances": [{}, {}]})
        self.server.post(self.predict, "{")
        metrics = self.server.metrics()
        self.assertEqual(metrics['sluice_requests_total{code="200",protocol="v1"}'], 1)
        self.assertEqual(metrics['sluice_requests_total{code="400",protocol="v1"}'], 1)
        self.assertEqual(metrics[f'sluice_rows_total{{model="{self.model}"}}'], 2)
        self.assertEqual(metrics[f'sluice_served_version{{model="{self.model}"}}'],
                         int(self.snapshots[-1].name))
        self.assertEqual(metrics['sluice_request_seconds_count{protocol="v1"}'], 2)
        self.assertGreater(metrics[f'sluice_served_event_age_seconds{{model="{self.model}"}}'], 0)
        self.assertEqual(metrics["sluice_requests_in_flight"], 1)

    def test_a_real_client_of_triton(self):
        try:
            import numpy
            import tritonclient.http as triton
        except ImportError as error:
            raise unittest.SkipTest(f"{error}; tests/requirements.txt has it") from error
        client = triton.InferenceServerClient(f"127.0.0.1:{self.server.port}")
        self.assertTrue(client.is_server_live() and client.is_server_ready())
        self.assertTrue(client.is_model_ready(self.model))
        self.assertEqual(client.get_server_metadata()["name"], "sluice")
        self.assertEqual(client.get_model_metadata(self.model)["platform"], "sluice")
        # Of texts a client of arrays cannot say that one is absent; of numbers NaN says it.
        whole = lambda row: all(name in row for name in set(serving.FEATURES) - {"age"})
        lines = [line for line in self.lines if whole(serving.row_of(line))][:200]
        rows = [serving.row_of(line) for line in lines]
        self.assertEqual(len(rows), 200)
        expected = serving.scores_of_verb(self.data, lines)
        for is_binary in (True, False):
            if not is_binary:  # JSON has no NaN
                for row in rows:
                    row.pop("age", None)
                without = [json.loads(line) for line in lines]
                for event in without:
                    event["features"]["user"].pop("age", None)
                expected = serving.scores_of_verb(self.data, [json.dumps(one) for one in without])
            inputs = []
            for tensor in serving.inputs_of(rows):
                numpy_type = {"FP64": numpy.float64, "INT64": numpy.int64, "BYTES": numpy.object_}
                made = triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
                values = numpy.array(tensor["data"], dtype=numpy_type[tensor["datatype"]])
                if not is_binary and tensor["name"] == "age":
                    continue
                made.set_data_from_numpy(values, binary_data=is_binary)
                inputs.append(made)
            for outputs in (None, [triton.InferRequestedOutput("pctcvr", binary_data=is_binary)]):
                result = client.infer(self.model, inputs, outputs=outputs, request_id="r1")
                self.assertEqual(result.get_response()["id"], "r1")
                for rate in serving.RATES if outputs is None else ["pctcvr"]:
                    self.assertEqual(list(result.as_numpy(rate)), [one[rate] for one in expected])
        with self.assertRaises(triton.InferenceServerException):
            client.get_model_metadata("other")
        client.close()


class VersionsTest(ServeCase):
    def test_swaps_under_load_drop_nothing(self):
        parent = self.copy(1)
        rows = [serving.row_of(line) for line in self.lines[:20]]
        expected = {}
        for path in self.snapshots:
            scores = serving.scores_of_verb(path, self.lines[:20])
            expected[int(path.name)] = [{r: one[r] for r in serving.RATES} for one in scores]
        seen, problems, counts = set(), [], []
        with serving.Server("--snapshots", parent).wait_ready() as server:
            ends = threading.Event()

            def ask():
                connection = server.connect()
                count = 0
                while not ends.is_set():
                    connection.request("POST", "/v1/models/m:predict",
                                       json.dumps({"instances": rows}),
                                       {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    body = json.loads(answer.read())
                    version = int(answer.headers["Sluice-Model-Version"])
                    seen.add(version)
                    if answer.status != 200 or body["predictions"] != expected[version]:
                        problems.append((answer.status, version))
                    count += 1
                connection.close()
                counts.append(count)

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                asking = [pool.submit(ask) for _ in range(4)]
                try:
                    for path in self.snapshots[1:]:
                        begin = time.monotonic()
                        # As rsync copies: LATEST may come before the folder is whole.
                        serving.set_latest(parent, path.name)
                        (parent / path.name).mkdir()
                        for file in sorted(path.iterdir()):
                            shutil.copy(file, parent / path.name / file.name)
                            time.sleep(0.05)
                        serving.sleep_until(begin + 1)
                    wanted = int(self.snapshots[-1].name)
                    sluice.wait_until(lambda: wanted in seen, 30, "the last version")
                finally:
                    ends.set()
                for one in asking:
                    one.result()
            metrics = server.metrics()
            self.assertEqual(server.terminate(), 0)
        self.assertEqual(problems, [])
        self.assertGreater(sum(counts), 100)
        self.assertGreaterEqual(len(seen), len(self.snapshots) - 1)
        codes = {name for name in metrics if name.startswith("sluice_requests_total")}
        self.assertIn('sluice_requests_total{code="200",protocol="v1"}', codes)
        self.assertFalse([code for code in codes if 'code="5' in code and "health" not in code])

    def test_a_damaged_version_keeps_the_one_before(self):
        parent = self.copy(2)
        old, new = (path.name for path in self.snapshots[1:3])
        shutil.copytree(self.snapshots[2], parent / new)
        weights = parent / new / "weights.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with serving.Server("--snapshots", parent).wait_ready() as server:
            version = lambda: server.metrics()['sluice_served_version{model="m"}']
            self.assertEqual(version(), int(old))
            serving.set_latest(parent, new)
            errors = lambda: server.metrics()['sluice_load_errors_total{model="m"}']
            sluice.wait_until(lambda: errors() > 0, 30, "an error is counted")
            self.assertEqual(server.post("/v1/models/m:predict", {"instances": [{}]})[0], 200)
            self.assertEqual(version(), int(old))
            self.assertEqual(server.post(f"/v1/models/m/versions/{int(new)}:predict",
                                         {"instances": [{}]})[0], 503)
            self.assertEqual(server.get("/v2/health/ready")[0], 200)
            weights.write_bytes(whole)
            sluice.wait_until(lambda: version() == int(new), 30, "the mended version")
            self.assertEqual(server.terminate(), 0)
            self.assertIn("weights.safetensors", server.process.stderr.read())

    def test_a_start_with_a_damaged_latest_serves_the_one_before(self):
        parent = self.copy(3)
        (parent / self.snapshots[2].name / "weights.safetensors").write_bytes(b"")
        with serving.Server("--snapshots", parent).wait_ready() as server:
            self.assertEqual(server.metrics()['sluice_served_version{model="m"}'],
                             int(self.snapshots[1].name))

    def test_an_alias(self):
        parent = self.copy(3)
        (parent / "aliases").mkdir()
        for name, path in (("live", self.snapshots[0]), ("canary", self.snapshots[1])):
            (parent / "aliases" / name).write_text(path.name + "\n")
        settings = {"serving.alias": "live"}
        with serving.Server("--snapshots", parent, settings=settings).wait_ready() as server:
            name = 'sluice_served_version{model="m"}'
            self.assertEqual(server.metrics()[name], int(self.snapshots[0].name))
            status, answer = server.post("/v1/models/m/labels/canary:predict", {"instances": [{}]})
            self.assertEqual(status, 200, answer)
            (parent / "aliases" / "live").write_text(self.snapshots[2].name + "\n")
            sluice.wait_until(lambda: server.metrics()[name] == int(self.snapshots[2].name), 30,
                              "the alias is followed")

    def test_snapshots_may_come_after_the_start(self):
        data = self.folder / "data"
        data.mkdir()
        with serving.Server("--data-dir", data) as server:
            self.assertEqual(server.get("/v2/health/live")[0], 200)
            self.assertEqual(server.get("/v2/health/ready")[0], 503)
            self.assertEqual(server.post("/v1/models/shop:predict", {"instances": [{}]})[0], 503)
            self.assertIn(f"{data} has no snapshot to serve yet", server.process.stderr.readline())
            for name in ("shop", "other"):
                parent = serving.copy_snapshots(self.snapshots[:1], data / "models" / name / "snapshots")
                serving.set_latest(parent, self.snapshots[0].name)
            sluice.wait_until(lambda: server.post("/v1/models/other:predict",
                                                  {"instances": [{}]})[0] == 200, 30, "a model")
            server.wait_ready()
            self.assertEqual(server.post("/v1/models/shop:predict", {"instances": [{}]})[0], 200)


class SafetyTest(ServeCase):
    def test_a_token(self):
        parent = self.copy(1)
        file = self.folder / "token"
        file.write_text(TOKEN + "\n")
        predict = "/v1/models/m:predict"
        for settings, environment in (({"serving.token_env": "SLUICE_TEST_TOKEN"},
                                       {"SLUICE_TEST_TOKEN": TOKEN}),
                                      ({"serving.token_file": f'"{file}"'}, {})):
            with serving.Server("--snapshots", parent, settings=settings,
                                environment=environment).wait_ready() as server:
                for path in ("/metrics", "/v2", "/v2/models/m", "/nothing"):
                    status, answer = server.get(path)
                    self.assertEqual((status, list(answer)), (401, ["error"]), path)
                for given in ("", "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
                              TOKEN, f"Basic {TOKEN}"):
                    status, _ = server.post(predict, {"instances": [{}]}, {"Authorization": given})
                    self.assertEqual(status, 401, given)
                headers = {"Authorization": f"Bearer {TOKEN}"}
                self.assertEqual(server.post(predict, {"instances": [{}]}, headers)[0], 200)
                self.assertEqual(server.get("/metrics", headers)[0], 200)
                for path in ("live", "ready"):
                    self.assertEqual(server.get("/v2/health/" + path)[0], 200)
                server.terminate()
                self.assertNotIn(TOKEN, server.process.stderr.read())

    def test_wrong_settings(self):
        parent = self.copy(1)
        short = self.folder / "short"
        short.write_text("abc")
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for words, part in ((["--snapshots", self.folder / "none"], "no such folder"),
                            (["--set", "serving.prt=1"], "did you mean"),
                            (["--set", "serving.token_env=NOT_SET_HERE"], "is not set"),
                            (["--set", f'serving.token_file="{short}"'], "16 or more"),
                            (["--set", 'serving.certificate="x"'], "serving.key"),
                            (["--set", 'serving.key="x"'], "serving.certificate"),
                            (["--set", "serving.token_env=HOME", "--set",
                              f'serving.token_file="{short}"'], "one token"),
                            (["--set", f"serving.port={taken.getsockname()[1]}"], "in use")):
            given = words if "--snapshots" in words else ["--snapshots", parent, *words]
            done = sluice.call([sluice.BINARY, "serve", *given])
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(part, done.stderr)

    def test_tls(self):
        parent = self.copy(1)
        certificate, key = serving.make_certificate(self.folder)
        settings = {"serving.certificate": f'"{certificate}"', "serving.key": f'"{key}"'}
        with serving.Server("--snapshots", parent, settings=settings,
                            tls=serving.trusting(certificate)).wait_ready() as server:
            self.assertTrue(server.url.startswith("https://"))
            connection = server.connect()
            for _ in range(3):
                status, answer = server.request("POST", "/v1/models/m:predict",
                                                {"instances": [{}] * 2_000}, connection=connection)
                self.assertEqual(status, 200)
                self.assertEqual(len(answer["predictions"]), 2_000)
            connection.close()
            # Plain HTTP to it, or silence, harms nobody.
            with socket.create_connection(("127.0.0.1", server.port), 20) as stream:
                stream.sendall(b"GET /v2 HTTP/1.1\r\n\r\n")
                try:
                    self.assertNotIn(b"200", stream.recv(4096))
                except ConnectionResetError:
                    pass
            self.assertEqual(server.get("/v2/health/live")[0], 200)
            self.assertEqual(server.terminate(), 0)

    def test_sigterm_answers_what_was_begun(self):
        parent = self.copy(1)
        with serving.Server("--snapshots", parent).wait_ready() as server:
            body = json.dumps({"instances": [{}] * 100}).encode()
            stream = socket.create_connection(("127.0.0.1", server.port), 30)
            head = (f"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n")
            stream.sendall(head.encode() + body[:50])
            time.sleep(0.3)  # a worker has it, and waits for the rest
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port), 5)
            stream.sendall(body[50:])
            answer = b""
            while part := stream.recv(65536):
                answer += part
            stream.close()
            self.assertIn(b" 200 OK", answer)
            self.assertIn(b"Connection: close", answer)
            self.assertEqual(server.process.wait(30), 0)

    def test_a_drain_is_bounded(self):
        parent = self.copy(1)
        settings = {"serving.drain_timeout": '"500 ms"'}
        with serving.Server("--snapshots", parent, settings=settings).wait_ready() as server:
            stream = socket.create_connection(("127.0.0.1", server.port), 30)
            stream.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")
            time.sleep(0.3)
            self.assertEqual(server.terminate(8), 0)
            stream.close()

    def test_killed_and_started_again(self):
        parent = self.copy(1)
        log = self.folder / "served.jsonl"
        port = None
        for _ in range(3):
            settings = {"serving.port": port} if port else {}
            with serving.Server("--snapshots", parent, "--log-predictions", log,
                                settings=settings).wait_ready() as server:
                port = server.port  # the same one again
                self.assertEqual(server.post("/v1/models/m:predict", {"instances": [{}]})[0], 200)
                sluice.wait_until(log.exists, 20, "the log")
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(20)


class SkewTest(ServeCase):
    def test_what_was_served_is_what_the_versions_say(self):
        parent = self.copy(2)
        log = self.folder / "served.jsonl"
        impressions = self.folder / "impressions.jsonl"
        impressions.write_text("\n".join(self.lines[:500]) + "\n")
        rows = [serving.row_of(line) for line in self.lines[:500]]
        with serving.Server("--snapshots", parent, "--log-predictions", log).wait_ready() as server:
            for path in self.snapshots[:2]:
                status, answer = server.post(f"/v1/models/m/versions/{int(path.name)}:predict",
                                             {"instances": rows})
                self.assertEqual(status, 200, answer)
            self.assertEqual(server.terminate(), 0)
        compare = lambda: sluice.call([sluice.BINARY, "score", parent, "--in", impressions,
                                       "--compare", log])
        done = compare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout), {"compared": 1000, "unequal": 0,
                                                   "largest_difference": 0, "not_found": 0})
        served = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual({line["version"] for line in served},
                         {int(path.name) for path in self.snapshots[:2]})
        served[7]["pctr"] += 0.25
        log.write_text("".join(json.dumps(line) + "\n" for line in served))
        done = compare()
        self.assertEqual(done.returncode, 1)
        skew = json.loads(done.stdout)
        self.assertEqual(skew["unequal"], 1)
        self.assertAlmostEqual(skew["largest_difference"], 0.25)

    def test_what_cannot_be_compared(self):
        parent = self.copy(2)
        versions = [int(path.name) for path in self.snapshots[:2]]
        impressions = self.folder / "impressions.jsonl"
        impressions.write_text("\n".join(self.lines[:20]) + "\n")
        log = self.folder / "served.jsonl"

        def serve(models):
            log.write_text("".join(
                json.dumps({"id": json.loads(line)["impression_id"], "model": model,
                            "version": version, "pctr": 2, "pcvr": 2, "pctcvr": 2}) + "\n"
                for model in models for version in versions for line in self.lines[:20]))

        def compare(*words, stdin=None):
            return sluice.call([sluice.BINARY, "score", parent, *words], input=stdin)

        # A pipe can be read once, and is compared with each version all the same.
        serve(["m"])
        for words, stdin in ((["--in", impressions], None), ([], impressions.read_text())):
            done = compare("--compare", log, *words, stdin=stdin)
            self.assertEqual(done.returncode, 1, done.stderr)
            skew = json.loads(done.stdout)
            self.assertEqual((skew["compared"], skew["unequal"], skew["not_found"]), (40, 40, 0))
        # Folders can be opened and not read.
        done = compare("--compare", log, "--in", self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot read the input", done.stderr)
        done = compare("--compare", self.folder, "--in", impressions)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot be read", done.stderr)
        serve(["m", "n"])
        done = compare("--compare", log, "--in", impressions)
        self.assertEqual(done.returncode, 2)
        self.assertIn("several models: choose one by --model: m, n", done.stderr)

    def test_the_log_is_bounded(self):
        parent = self.copy(1)
        log = self.folder / "served.jsonl"
        settings = {"serving.log_size": '"64 KiB"'}
        with serving.Server("--snapshots", parent, "--log-predictions", log,
                            settings=settings).wait_ready() as server:
            for _ in range(20):
                server.post("/v1/models/m:predict", {"instances": [{}] * 100})
            kept = server.metrics()['sluice_prediction_log_lines_total{result="kept"}']
            self.assertEqual(kept, 2000)
            self.assertEqual(server.terminate(), 0)
        self.assertEqual(sorted(path.name for path in self.folder.glob("served*")),
                         ["served.jsonl", "served.jsonl.1"])
        for path in self.folder.glob("served*"):
            self.assertLess(path.stat().st_size, 80_000)


class RunTest(sluice.Case):
    def test_one_process_learns_and_serves_and_the_bits_are_the_same(self):
        config = sluice.generate(self.folder / "shop", "--impressions", "8000", "--seed", "5")
        digests = {}
        for name, options in (("alone", []), ("serving", ["--serve"])):
            data = self.folder / name
            settings = {"snapshots.every": '"1 h"', "source.idle_after": '"500 ms"',
                        "serving.port": 0}
            process = subprocess.Popen(sluice.command("run", config, data, settings, *options),
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                port = int(process.stdout.readline().rsplit(":", 1)[1]) if options else None
                asked = self.wait_until_learned(data / "digests.jsonl", port)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(120), 0)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            if options:
                self.assertGreater(asked, 0)
            digests[name] = sluice.digests(data)
        common = set(digests["alone"]) & set(digests["serving"])
        self.assertGreater(len(common), 3)
        for sequence in common:
            self.assertEqual(digests["alone"][sequence], digests["serving"][sequence])

    def wait_until_learned(self, lines, port):
        """Until several snapshots are there and no further one comes; how often it was asked."""
        end = time.monotonic() + 120
        asked, before, still_since = 0, 0, time.monotonic()
        while before < 4 or time.monotonic() < still_since + 2:
            self.assertLess(time.monotonic(), end)
            if port:
                asked += self.ask(port)
            count = lines.read_text().count("snapshot") if lines.exists() else 0
            if count != before:
                before, still_since = count, time.monotonic()
            time.sleep(0.02)
        return asked

    @staticmethod
    def ask(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", "/v1/models/model:predict", '{"instances": [{"hour": 5}]}',
                               {"Content-Type": "application/json"})
            return connection.getresponse().status == 200
        finally:
            connection.close()


if __name__ == "__main__":
    unittest.main()
