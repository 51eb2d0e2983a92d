package peers;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The label join on Kafka Streams (Processor API, RocksDB stores with changelogs), over the topics
 * that LoadLogs has filled; prints one line of JSON a run.
 *
 * <pre>
 *   --brokers HOST:PORT  --topics I,C,P  --partitions N
 *   --work DIR              the stores' folder
 *   --application NAME      of each run, with its number behind
 *   --threads N             stream threads
 *   --repeat N              runs in this process, each an application of its own
 *   --guarantee exactly_once_v2|at_least_once
 *   --click-window-ms N  --conversion-window-ms N  --out-of-orderness-ms N
 *   --set KEY=VALUE,...     settings of Kafka Streams, over those below
 * </pre>
 */
public final class StreamsJoin {
    private StreamsJoin() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        for (int run = 1; run <= options.number("repeat"); ++run) {
            Labels labels = new Labels();
            Stopwatch stopwatch = new Stopwatch();
            String application = options.text("application") + "-" + run;
            execute(options, application, labels, stopwatch);
            System.out.println(stopwatch.report(labels));
            deleteChangelogs(options.text("brokers"), application);
        }
    }

    private static void deleteChangelogs(String brokers, String application) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", brokers))) {
            admin.deleteTopics(List.of(application + "-" + LabelProcessor.OPEN + "-changelog",
                    application + "-" + LabelProcessor.TIMES + "-changelog")).all().get();
        }
    }

    private static void execute(Options options, String application, Labels labels,
            Stopwatch stopwatch) throws Exception {
        CountDownLatch unfinished = new CountDownLatch(options.number("partitions"));
        LabelRule rule = new LabelRule(options.milliseconds("click-window-ms"),
                options.milliseconds("conversion-window-ms"));
        LabelProcessor.Shared shared = new LabelProcessor.Shared(new Topics(options.text("topics")),
                rule, options.milliseconds("out-of-orderness-ms"), labels, stopwatch, unfinished);
        AtomicReference<Throwable> failure = new AtomicReference<>();
        try (KafkaStreams streams =
                new KafkaStreams(topology(shared), settings(options, application))) {
            streams.setUncaughtExceptionHandler(error -> {
                failure.set(error);
                while (unfinished.getCount() > 0) {
                    unfinished.countDown();
                }
                return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                        .SHUTDOWN_CLIENT;
            });
            streams.start();
            unfinished.await();
            streams.close(Duration.ofSeconds(60));
            streams.cleanUp();
        }
        if (failure.get() != null) {
            throw new IllegalStateException(failure.get());
        }
    }

    private static Topology topology(LabelProcessor.Shared shared) {
        return new Topology()
                .addSource("logs", new ByteArrayDeserializer(), new ByteArrayDeserializer(),
                        shared.topics().all())
                .addProcessor("join", () -> new LabelProcessor(shared), "logs")
                .addStateStore(store(LabelProcessor.OPEN), "join")
                .addStateStore(store(LabelProcessor.TIMES), "join");
    }

    private static StoreBuilder<KeyValueStore<Bytes, byte[]>> store(String name) {
        return Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(name), Serdes.Bytes(),
                        Serdes.ByteArray())
                .withCachingDisabled()
                .withLoggingEnabled(Map.of());
    }

    private static Properties settings(Options options, String application) {
        Properties settings = new Properties();
        settings.put("application.id", application);
        settings.put("bootstrap.servers", options.text("brokers"));
        settings.put("state.dir", options.text("work"));
        settings.put("num.stream.threads", options.text("threads"));
        settings.put("processing.guarantee", options.text("guarantee"));
        settings.put("rocksdb.config.setter", StoreSettings.class.getName());
        settings.put("commit.interval.ms", 10_000);
        settings.put("producer.transaction.timeout.ms", 120_000);
        settings.put("producer.compression.type", "lz4");
        settings.put("producer.linger.ms", 100);
        settings.put("producer.batch.size", 256 << 10);
        settings.put("consumer.auto.offset.reset", "earliest");
        settings.put("consumer.max.poll.records", 4000);
        settings.put("consumer.fetch.max.bytes", 16 << 20);
        settings.put("consumer.max.partition.fetch.bytes", 4 << 20);
        settings.put("buffered.records.per.partition", 4000);
        for (String each : options.text("set", "").split(",")) {
            if (!each.isEmpty()) {
                String[] pair = each.split("=", 2);
                settings.put(pair[0], pair[1]);
            }
        }
        return settings;
    }
}
