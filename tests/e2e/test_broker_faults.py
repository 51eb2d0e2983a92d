"""A real Apache Kafka that loses, changes, holds back, repeats, crashes and fails over.

In no case is a label lost, doubled or changed without a word: the digests are those of the same
logs replayed from files, or the service names what is wrong and stops, or, told to go on, it marks
what follows.
"""

import json
import random
import signal
import subprocess
import time

import broker
import sluice

# So large that every partition of every stream has a few records in each half.
SHOP = ("--impressions", 40000, "--seed", 17, "--segments", 4, "--repeats", 0.1, "--users", 2000,
        "--partitions", 2, "--duplicates", 0.01, "--late", 0.005, "--span", "6 h")
SETTINGS = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"',
            "source.idle_after": '"never"', "store.commit_interval": '"50 ms"',
            "snapshots.every": '"1 h"'}


class Faults(sluice.Case):
    """A shop in four segments, on topics of its own at self.address."""

    address = sluice.KAFKA
    shop = SHOP

    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(self.logs, *self.shop)
        self.topics = broker.Topics(self.address, self.folder.name + "-")
        self.settings = {**SETTINGS, **self.topics.settings}

    def files(self):
        """The report of the same logs from files, undisturbed."""
        return self.replay(self.config, "files", SETTINGS)

    def part(self, first, last):
        return broker.segments(self.logs, self.folder / f"part-{first}-{last}", first, last)

    def run_service(self, *arguments, settings=None, name="live"):
        words = sluice.command("run", self.config, self.folder / name,
                               {**self.settings, **(settings or {})}, *arguments)
        return broker.Service(words, self.folder / f"{name}-{time.monotonic_ns()}.log")

    def finish(self, *arguments):
        """The rest from the broker, to the topics' ends; the report over all."""
        return self.replay(self.config, "live", self.settings, *arguments)

    def settle(self, service):
        """Until the service has read all that is on the broker and done what it can with it."""
        told = len(service.said())

        def has_read_all():
            assert service.process.poll() is None, f"it ended: {service.said()[-3000:]}"
            return " lag 0 records, " in service.said()[told:]
        sluice.wait_until(has_read_all, 120, f"lag 0 in {service.said()[-3000:]}")
        lines = self.folder / "live" / "digests.jsonl"
        size = lambda: lines.stat().st_size if lines.exists() else 0
        sluice.wait_until(lambda: size() > 0, 60, "a first checkpoint")
        before = 0
        while before != size():
            before = size()
            time.sleep(1.0)

    def ends(self, stream):
        return {partition: shape[2] for partition, shape in self.topics.shape(stream).items()}


class LostRecords(Faults):
    """Records that the broker does not have any more."""

    shop = ("--impressions", 20000, "--seed", 17, "--segments", 4, "--users", 2000,
            "--partitions", 1, "--span", "6 h")

    def held(self):
        """The first half joined, and the service stopped; the ends of the clicks."""
        self.topics.load(self.part(0, 1))
        self.finish("--at-end", "hold")
        ends = self.ends("clicks")
        self.topics.load(self.part(2, 3), "--append")
        return ends

    def expect_stop(self, *wanted):
        done = self.replay(self.config, "live", self.settings, expect=1)
        last = done.stderr.splitlines()[-1]
        for text in (*wanted, "--accept-lost"):
            self.assertIn(text, last)

    def accept(self, *wanted):
        """Going on says what is lost; what follows is marked, and the next start needs no flag."""
        done = sluice.call(sluice.command("replay", self.config, self.folder / "live",
                                          self.settings, "--accept-lost", "--at-end", "hold"))
        self.assertEqual(done.returncode, 0, done.stderr)
        for text in wanted:
            self.assertIn(text, done.stderr)
        report = self.finish()
        self.assertFalse(report["reproducible"])
        snapshots = (self.folder / "live" / "models").glob("*/snapshots/*/manifest.json")
        newest = max(snapshots, key=lambda path: int(path.parent.name))
        self.assertIs(json.loads(newest.read_text())["reproducible"], False)
        return report

    @sluice.needs_kafka
    @sluice.slow
    def test_removed_while_stopped(self):
        end = self.held()[0]
        self.topics.tool("delete-records", self.topics["clicks"], 0, end + 5)
        place = self.topics["clicks"] + "/0"
        self.expect_stop(f"{place}: the records [", f", {end + 5}) are lost")
        report = self.accept(f"up to {place}@{end + 5}, this one not included: removed before")
        # Everything that is left was read.
        self.assert_adds_up(report)
        left = sum(high - low for _, low, high in self.topics.shape("clicks").values())
        self.assertGreaterEqual(report["events"]["clicks"], left)
        self.assertLess(report["events"]["clicks"], self.files()["events"]["clicks"])

    @sluice.needs_kafka
    @sluice.slow
    def test_removed_while_running(self):
        self.topics.load(self.part(0, 1))
        place = self.topics["clicks"] + "/0"
        with self.run_service() as service:
            self.settle(service)
            service.signal(signal.SIGSTOP)
            end = self.ends("clicks")[0]
            self.topics.load(self.part(2, 3), "--append")
            self.topics.tool("delete-records", self.topics["clicks"], 0, end + 5)
            service.signal(signal.SIGCONT)
            self.assertEqual(service.wait(), 1)
            self.assertIn(f"{place}: the records [{end}, {end + 5}) are lost", service.said())
            self.assertIn("--accept-lost", service.said().splitlines()[-1])
        self.accept(place)

    @sluice.needs_kafka
    @sluice.slow
    def test_nothing_lost_is_nothing_marked(self):
        """The flag alone changes nothing."""
        self.held()
        done = sluice.call(sluice.command("replay", self.config, self.folder / "live",
                                          self.settings, "--accept-lost"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("lost records", done.stderr)
        self.assert_same(self.finish(), self.files())

    def test_removed_segment_of_files(self):
        """The same from files whose oldest segments were removed before they were processed."""
        half = self.part(0, 1)
        self.topics.settings = {"source.root": f'"{half}"'}
        self.settings = {**SETTINGS, **self.topics.settings}
        self.finish("--at-end", "hold")
        rest = broker.segments(self.logs, self.folder / "rest", 0, 3)
        for number in (0, 1, 2):
            (rest / "clicks" / "00000" / f"{number:05}.jsonl").unlink()
        self.settings["source.root"] = f'"{rest}"'
        self.expect_stop("clicks/0", "is lost")
        self.accept("clicks/0 segment 3 byte 0, this one not included: removed before")


class ChangedTopics(Faults):
    """Topics that are not those any more that were read."""

    def recreate(self, *streams):
        """Deleted and made anew, longer than before, with other records."""
        other = self.folder / "other"
        sluice.generate(other, "--impressions", 60000, "--seed", 18, "--segments", 4, "--users",
                        500, "--partitions", 2, "--span", "12 h")
        self.topics.tool("delete", *(self.topics[stream] for stream in streams))
        for stream in broker.STREAMS:
            if stream not in streams:
                for path in (other / stream).glob("*/*.jsonl"):
                    path.write_bytes(b"")
        self.topics.load(other, "--append")

    @sluice.needs_kafka
    @sluice.slow
    def test_recreated_while_stopped(self):
        self.topics.load(self.part(0, 1))
        self.finish("--at-end", "hold")
        self.recreate("clicks")
        done = self.replay(self.config, "live", self.settings, expect=1)
        self.assertIn("the log was changed: " + self.topics["clicks"], done.stderr)
        # Which is no loss that could be accepted: where the logs part is not known.
        done = self.replay(self.config, "live", self.settings, "--accept-lost", expect=1)
        self.assertIn("the log was changed: " + self.topics["clicks"], done.stderr)

    @sluice.needs_kafka
    @sluice.slow
    def test_recreated_while_running(self):
        """The new log is longer than the old one when the service reads again: no offset is out of
        range, and only the last record read tells."""
        self.topics.load(self.part(0, 1))
        with self.run_service() as service:
            self.settle(service)
            service.signal(signal.SIGSTOP)
            self.recreate("clicks")
            service.signal(signal.SIGCONT)
            self.assertEqual(service.wait(), 1)
            self.assertIn("the log was changed: " + self.topics["clicks"], service.said())

    @sluice.needs_kafka
    @sluice.slow
    def test_recreated_under_the_reader(self):
        """The same without a pause: the broker does not know the topic for a moment."""
        self.topics.load(self.part(0, 1))
        with self.run_service() as service:
            self.settle(service)
            self.recreate("clicks")
            self.assertEqual(service.wait(), 1)
            last = service.said().splitlines()[-1]
            self.assertIn(self.topics["clicks"], last)
            self.assertRegex(last, "the log was changed|cut or made anew|does not exist"
                                   "|nknown topic")

    @sluice.needs_kafka
    @sluice.slow
    def test_partitions_added(self):
        self.topics.load(self.part(0, 1))
        with self.run_service() as service:
            self.settle(service)
            self.topics.tool("add-partitions", self.topics["purchases"], 3)
            self.assertEqual(service.wait(), 1)
            self.assertIn(f"topic {self.topics['purchases']} now has 3 partitions, not 2",
                          service.said())
        done = self.replay(self.config, "live", self.settings, expect=1)
        self.assertIn(f"but {self.topics['purchases']} has 3", done.stderr)
        for stream in ("impressions", "clicks"):
            self.topics.tool("add-partitions", self.topics[stream], 3)
        done = self.replay(self.config, "live", self.settings, expect=1)
        self.assertIn("the logs have 3 partitions but this data folder began with 2", done.stderr)


class OddProducers(Faults):
    """What producers do to a log that is otherwise sound."""

    @sluice.needs_kafka
    @sluice.slow
    def test_hanging_transaction(self):
        """It holds event time back and the service says so; committed, everything is as ever."""
        expected = self.files()
        self.topics.load(self.part(0, 1))
        rest = self.part(2, 3)
        lines = self.folder / "lines"
        with open(lines, "wb") as file:
            for path in sorted((rest / "clicks" / "00000").glob("*.jsonl")):
                file.write(path.read_bytes())
                path.write_bytes(b"")
        place = self.topics["clicks"] + "/0@"
        # Quiet after a second, and all event times long ago: nothing but the transaction holds it.
        quiet = {"source.idle_after": '"1 s"'}
        with subprocess.Popen([broker.TOOL, "--brokers", self.address, "transact",
                               self.topics["clicks"], "0", lines], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as producer:
            self.assertEqual(producer.stdout.readline(), "open\n")
            self.topics.load(rest, "--append")
            with self.run_service(settings=quiet) as service:
                service.wait_for("a transaction is open there", 40)
                told = next(line for line in service.said().splitlines()
                            if "a transaction is open" in line)
                self.assertIn(place, told)
                service.wait_for("held by clicks/0")
                producer.stdin.write("commit\n")
                producer.stdin.close()
                self.assertEqual(producer.wait(30), 0)
                service.wait_for("partitions quiet", 30)
                self.assertNotIn("late_after_quiet", service.said())
                service.stop()
        self.assert_same(self.finish(), expected)

    @sluice.needs_kafka
    @sluice.slow
    def test_aborted_transactions(self):
        """A third of all transactions is sent twice, the first time aborted."""
        self.topics.load(self.logs, "--slices", 30, "--transactions")
        sent = sum(sum(self.ends(stream).values()) for stream in broker.STREAMS)
        report = self.finish()
        self.assertGreater(sent, 1.3 * sum(report["events"].values()))
        self.assert_same(report, self.files())

    @sluice.needs_kafka
    @sluice.slow
    def test_hour_produced_twice(self):
        """Late by its own log, or a duplicate: the labels, samples and the model are the same."""
        expected = self.files()
        self.topics.load(self.logs)
        again = self.part(2, 2)
        self.topics.load(again, "--append")
        report = self.finish()
        for key in ("samples_digest", "model_digest", "labels", "samples", "metrics"):
            self.assertEqual(report[key], expected[key], key)
        count = sum(len(path.read_bytes().splitlines()) for path in again.glob("*/*/*.jsonl"))
        self.assertGreater(count, 1000)
        self.assertEqual(sum(report["refused"].values()),
                         sum(expected["refused"].values()) + count)
        self.assert_adds_up(report)

    @sluice.needs_kafka
    @sluice.slow
    def test_tiny_fetches(self):
        """As of a throttled broker: each answer holds a batch at most."""
        self.topics.load(self.logs, "--slices", 200)
        self.settings.update({"source.max_queued_bytes": '"64 KiB"',
                              'source.properties.fetch.message.max.bytes': '"1000"',
                              'source.properties.fetch.wait.max.ms': '"1"'})
        self.assert_same(self.finish(), self.files())


class OwnBroker(Faults):
    """A broker of one node that is killed, stopped and made to stand still."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker = broker.Broker()
        cls.addClassCleanup(cls.broker.remove)
        cls.address = cls.broker.address

    def load_in_background(self, *options):
        loader = subprocess.Popen(self.topics.loader(self.logs, *options),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(loader.stderr.close)
        self.addCleanup(loader.wait)
        self.addCleanup(loader.kill)
        return loader

    def wait_for_loader(self, loader):
        self.assertEqual(loader.wait(120), 0, loader.stderr.read())


@sluice.needs_kafka
@sluice.slow
class TransactionShape(OwnBroker):
    """The shape of Kafka's own test of transactions: 100,000 events and more, hard and clean kills
    of the service and of the broker in turn, and in the end none is lost and none is doubled."""

    shop = ("--impressions", 98000, "--seed", 19, "--users", 5000, "--partitions", 2, "--repeats",
            0.1, "--span", "12 h")

    def test_killed_in_turn(self):
        expected = self.files()
        self.assertGreater(sum(expected["events"].values()), 100000)
        loader = self.load_in_background("--slices", 150, "--seconds", 20, "--transactions")
        sluice.wait_until(lambda: self.has_topics(), 30, "the topics")
        draw = random.Random(20)
        deeds = ("kill service", "kill broker", "stop service", "stop broker", "kill service")
        done = 0
        service = self.run_service(settings={"store.commit_records": 500})
        try:
            while done < 2 * len(deeds):
                time.sleep(draw.uniform(0.2, 1.5))
                deed = deeds[done % len(deeds)]
                done += 1
                if deed == "stop service":
                    service.signal(signal.SIGTERM)
                    self.assertEqual(service.wait(90), 0, service.said()[-2000:])
                elif deed == "kill service":
                    self.assertIsNone(service.process.poll(), service.said()[-2000:])
                    service.kill()
                else:
                    self.broker.call(deed.replace(" broker", "-node"), 1)
                    self.broker.start()
                if "service" in deed:
                    service = self.run_service(settings={"store.commit_records": 500})
            self.wait_for_loader(loader)
            self.settle(service)
            service.stop()
        finally:
            service.__exit__()
        self.assertGreater(sum(1 for _ in self.folder.glob("live-*.log")), 5)
        # What the service joined is the beginning of the same sequence; the end from the broker.
        mine = sluice.digests(self.folder / "live")
        theirs = sluice.digests(self.folder / "files")
        common = sorted(set(mine) & set(theirs))
        self.assertGreater(len(common), 20)
        for sequence in common:
            self.assertEqual(mine[sequence], theirs[sequence], sequence)
        self.assert_same(self.finish(), expected)

    def has_topics(self):
        try:
            return all(self.topics.shape(stream) for stream in broker.STREAMS)
        except AssertionError:
            return False


@sluice.needs_kafka
@sluice.slow
class StandingStill(OwnBroker):
    """An outage is not the end of a log."""

    def test_broker_stands_still(self):
        """Longer than idle_after, with records that the service has not seen: its logs, read to
        what was their ends and silent, are not quiet without a new answer."""
        idle_after_s = 20  # so that it is read before, which the log line tells every 10 s
        self.topics.load(self.part(0, 1))
        with self.run_service(settings={"source.idle_after": f'"{idle_after_s} s"'}) as service:
            self.settle(service)
            # It is stopped before it could declare anything quiet, so only the outage can.
            service.signal(signal.SIGSTOP)
            self.assertNotIn("partitions quiet", service.said())
            self.topics.load(self.part(2, 3), "--append")
            self.broker.signal(signal.SIGSTOP)
            # Until the last answer, of before the outage, is older than what may be relied upon.
            time.sleep(idle_after_s + 1)
            service.signal(signal.SIGCONT)
            time.sleep(5)
            self.broker.signal(signal.SIGCONT)
            self.settle(service)
            self.assertNotIn("late_after_quiet", service.said())
            service.stop()
        self.assert_same(self.finish(), self.files())

    def test_log_cut_by_a_crash(self):
        """A machine that lost its power loses what Kafka had acknowledged but not synced."""
        # In batches: the broker drops a batch that is cut.
        self.topics.load(self.part(0, 1), "--slices", 8, "--seconds", 2)
        place = self.topics["clicks"] + "/0"
        with self.run_service() as service:
            self.settle(service)
            end = self.ends("clicks")[0]
            self.broker.kill()
            log = self.broker.folder / "data" / f"{self.topics['clicks']}-0" / f"{0:020}.log"
            with open(log, "rb+") as file:
                file.truncate(log.stat().st_size * 2 // 3)
            self.broker.start()
            self.assertEqual(service.wait(), 1)
            left = self.ends("clicks")[0]
            self.assertTrue(0 < left < end, (left, end))
            self.assertIn(f"{place}: the records [{left}, {end}) that were read before are gone",
                          service.said())
        done = self.replay(self.config, "live", self.settings, expect=1)
        self.assertIn(f"{place}: the records [{left}, {end})", done.stderr)
        with self.run_service("--accept-lost") as service:
            service.wait_for(f"{place}@{left} up to {place}@{end}", 30)
            service.wait_for("they were read, but the log was cut")
            self.topics.load(self.part(2, 3), "--append")
            self.settle(service)
            service.stop()
        self.assertFalse(self.finish()["reproducible"])


@sluice.needs_kafka
@sluice.slow
class ThreeNodes(Faults):
    """Three replicas on three nodes: one may go at any time."""

    shop = ("--impressions", 60000, "--seed", 21, "--users", 5000, "--partitions", 2, "--repeats",
            0.1, "--span", "12 h")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker = broker.Broker(nodes=3)
        cls.addClassCleanup(cls.broker.remove)
        cls.address = cls.broker.address

    def under_way(self, deeds):
        """Calls each while the logs are written and read; then compares with the files' replay."""
        expected = self.files()
        loader = subprocess.Popen(
            self.topics.loader(self.logs, "--slices", 200, "--seconds", 6 * len(deeds)),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            sluice.wait_until(lambda: self.is_loading(), 30, "records")
            with self.run_service() as service:
                for deed in deeds:
                    deed()
                    self.assertIsNone(service.process.poll(), service.said()[-3000:])
                self.assertEqual(loader.wait(120), 0, loader.stderr.read())
                self.settle(service)
                service.stop()
        finally:
            loader.kill()
            loader.wait()
            loader.stderr.close()
        self.assert_same(self.finish(), expected)

    def is_loading(self):
        done = sluice.call([broker.TOOL, "--brokers", self.address, "show",
                            self.topics["purchases"]])
        return done.returncode == 0

    def fail_leader(self):
        leader = self.leader()
        self.broker.kill(leader)
        sluice.wait_until(lambda: self.leader() not in (None, -1, leader), 30, "a new leader")
        self.broker.start(leader)

    def leader(self):
        try:
            return self.topics.shape("impressions")[0][0]
        except AssertionError:  # just being elected
            return None

    def test_leader_killed(self):
        self.under_way([self.fail_leader] * 2)

    def test_rolling_restart(self):
        def restart(node):
            self.broker.stop(node)
            self.broker.start(node)
        self.under_way([lambda node=node: restart(node) for node in (1, 2, 3)])
