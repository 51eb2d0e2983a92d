"""Impressions scored per second of one thread: Sluice beside ONNX Runtime, on the same rows.

    scorer_table.py --build DIR [--peers PYTHON] [--quick] [--rows N] [--json FILE]

Runs scorer_bench, which writes its snapshots and impressions to a folder, and for each of them this
file again under PYTHON (with the packages of bench/peers/onnx/requirements.txt), which runs the same
towers in ONNX Runtime with one thread, in turns:
    towers   on inputs that were gathered and pooled before the clock started
    gather   the same, with NumPy's gathering of the rows by their numbers
    whole    the model with its rows inside: look-up by key, gathering, towers
All times are the thread's own processor time, so that others on the machine disturb it little.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

BATCHES = (1, 32, 256)
DIM = 18


def measured(seconds, batch, items, run):
    """Rows per second of run(item), item after item."""
    def loop(until):
        count, start = 0, time.thread_time()
        while (passed := time.thread_time() - start) < until:
            for _ in range(8):
                run(items[count % len(items)])
                count += 1
        return batch * count / passed
    loop(seconds / 4)
    return loop(seconds)


class Peer:
    """ONNX Runtime's sessions for one snapshot."""

    def __init__(self, folder):
        import numpy as np
        import onnx
        import onnxruntime
        import safetensors.numpy
        self.np, self.onnx, self.onnxruntime = np, onnx, onnxruntime
        self.tensors = safetensors.numpy.load_file(folder / "000000000001" / "weights.safetensors")
        self.fields = sorted(name.split(".")[1] for name in self.tensors if name.endswith(".keys"))
        self.towers = self.session(self.tower_nodes(), [("x", [None, len(self.fields) * DIM])])
        self.whole = self.session(self.row_nodes() + self.tower_nodes(),
                                  [(name, [None]) for name in self.fields])

    def constant(self, name, values):
        self.constants[name] = self.onnx.numpy_helper.from_array(values, name)
        return name

    def tower_nodes(self):
        """The first layers of both towers are one product, as in Sluice."""
        node, tensors, np = self.onnx.helper.make_node, self.tensors, self.np
        if not hasattr(self, "constants"):
            self.constants = {}
        both = {kind: np.concatenate([tensors[f"tower.{tower}.0.{kind}"] for tower in ("ctr", "cvr")])
                for kind in ("weight", "bias")}
        nodes = [
            node("Gemm", ["x", self.constant("w0", both["weight"].T.copy()),
                          self.constant("b0", both["bias"])], ["z0"]),
            node("Relu", ["z0"], ["h0"]),
            node("Split", ["h0"], ["h0.ctr", "h0.cvr"], axis=1, num_outputs=2),
        ]
        for tower in ("ctr", "cvr"):
            for layer in (1, 2):
                names = [self.constant(f"{kind}.{tower}.{layer}", values) for kind, values in (
                    ("w", tensors[f"tower.{tower}.{layer}.weight"].T.copy()),
                    ("b", tensors[f"tower.{tower}.{layer}.bias"]))]
                nodes.append(node("Gemm", [f"h{layer - 1}.{tower}", *names], [f"z{layer}.{tower}"]))
                if layer == 1:
                    nodes.append(node("Relu", [f"z1.{tower}"], [f"h1.{tower}"]))
            nodes.append(node("Sigmoid", [f"z2.{tower}"], [f"p{tower}"]))
        return nodes + [node("Mul", ["pctr", "pcvr"], ["pctcvr"])]

    def row_nodes(self):
        node, np, helper = self.onnx.helper.make_node, self.np, self.onnx.numpy_helper
        nodes = []
        for field in self.fields:
            keys = self.tensors[f"embedding.{field}.keys"].view(np.int64)
            rows = np.concatenate([self.tensors[f"embedding.{field}.rows"],
                                   np.zeros((1, DIM), np.float32)])
            nodes.append(node(
                "LabelEncoder", [field], [f"{field}.number"], domain="ai.onnx.ml",
                keys_tensor=helper.from_array(keys, "keys"),
                values_tensor=helper.from_array(np.arange(len(keys)), "numbers"),
                default_tensor=helper.from_array(np.array([len(keys)]), "default")))
            nodes.append(node("Gather", [self.constant(f"{field}.rows", rows), f"{field}.number"],
                              [f"{field}.row"]))
        return nodes + [node("Concat", [f"{field}.row" for field in self.fields], ["x"], axis=1)]

    def session(self, nodes, inputs):
        helper, types = self.onnx.helper, self.onnx.TensorProto
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes, "model",
            [helper.make_tensor_value_info(name, types.FLOAT if name == "x" else types.INT64, shape)
             for name, shape in inputs],
            [helper.make_tensor_value_info(name, types.FLOAT, [None, 1])
             for name in ("pctr", "pcvr", "pctcvr")],
            [value for name, value in self.constants.items() if name in used])
        model = helper.make_model(graph, ir_version=9, opset_imports=[
            helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 4)])
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = self.onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        return self.onnxruntime.InferenceSession(model.SerializeToString(), options,
                                                 providers=["CPUExecutionProvider"])

    def bound(self, x):
        """Inputs and outputs where they lie, so that a run copies nothing."""
        binding = self.towers.io_binding()
        binding.bind_cpu_input("x", x)
        outputs = []
        for name in ("pctr", "pcvr", "pctcvr"):
            outputs.append(self.np.empty((len(x), 1), self.np.float32))
            binding.bind_output(name, "cpu", 0, self.np.float32, outputs[-1].shape,
                                outputs[-1].ctypes.data)
        return binding, x, outputs

    def rates(self, folder, batch, seconds):
        import xxhash
        np = self.np
        seeds = [xxhash.xxh3_64_intdigest(field) for field in self.fields]
        keys = np.array([
            [xxhash.xxh3_64_intdigest(str(value), seed=seed)
             for seed, value in zip(seeds, json.loads(line)["features"].values())]
            for line in (folder / f"batch{batch}").open()], np.uint64)
        tables = [self.tensors[f"embedding.{field}.rows"] for field in self.fields]
        numbers = [np.searchsorted(self.tensors[f"embedding.{field}.keys"], keys[:, place])
                   for place, field in enumerate(self.fields)]
        starts = range(0, len(keys), batch)

        def gathered(start):
            return np.concatenate([table[number[start:start + batch]]
                                   for table, number in zip(tables, numbers)], axis=1)
        requests = [{field: np.ascontiguousarray(keys[start:start + batch, place]).view(np.int64)
                     for place, field in enumerate(self.fields)} for start in starts]
        bound = [self.bound(gathered(start)) for start in starts]
        return {
            "towers": measured(seconds, batch, bound,
                               lambda one: self.towers.run_with_iobinding(one[0])),
            "gather": measured(seconds, batch, starts,
                               lambda start: self.towers.run(None, {"x": gathered(start)})),
            "whole": measured(seconds, batch, requests, lambda one: self.whole.run(None, one)),
        }


def peer(folder, seconds):
    made = Peer(folder)
    print(json.dumps({batch: made.rates(folder, batch, seconds) for batch in BATCHES}))


def table(ours, theirs):
    kinds = [name for name in ours if name != "kernels"]
    print(f"\nimpressions/s of one thread, kernels {ours['kernels']}")
    print(f"{'model':14}{'batch':>6}{'from JSON':>12}{'from blobs':>12}", end="")
    if theirs:
        print(f"{'ONNX whole':>12}{'gather':>10}{'towers':>10}{'blobs/whole':>13}{'/towers':>9}", end="")
    print()
    for kind in kinds:
        for batch, rates in ours[kind].items():
            print(f"{kind:14}{batch:>6}{rates['json']:>12,.0f}{rates['blob']:>12,.0f}", end="")
            if theirs:
                their = theirs["shared" if "shared" in kind else "own"][batch]
                print(f"{their['whole']:>12,.0f}{their['gather']:>10,.0f}{their['towers']:>10,.0f}"
                      f"{rates['blob'] / their['whole']:>12.2f}x{rates['blob'] / their['towers']:>8.2f}x",
                      end="")
            print()


def main():
    parser = argparse.ArgumentParser(description="Scoring by one thread, beside ONNX Runtime")
    parser.add_argument("--build", type=pathlib.Path)
    parser.add_argument("--peers", help="a Python that has ONNX Runtime")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds = 0.2 if arguments.quick else 1
    if arguments.peer:
        return peer(arguments.peer, seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = subprocess.run(
            [arguments.build / "scorer_bench", "--rows", str(arguments.rows), "--seconds",
             str(seconds), "--export", folder], stdout=subprocess.PIPE, check=True)
        ours, theirs = json.loads(done.stdout), {}
        for kind in ("own", "shared") if arguments.peers else ():
            done = subprocess.run([arguments.peers, __file__, "--peer", folder / f"f32-{kind}",
                                   *(["--quick"] if arguments.quick else [])],
                                  stdout=subprocess.PIPE, check=True)
            theirs[kind] = json.loads(done.stdout)
    table(ours, theirs)
    if arguments.json:
        arguments.json.write_text(json.dumps({"sluice": ours, "onnx_runtime": theirs}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
