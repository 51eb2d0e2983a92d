package peers;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Makes the topics and fills them from log files: partition p of a topic is the p-th file.
 *
 * <pre>
 *   --brokers HOST:PORT  --logs ROOT  --topics I,C,P  --click-window-ms N  --conversion-window-ms N
 * </pre>
 */
public final class LoadLogs {
    /** More than the disorder of any log, so that the last windows are passed too. */
    private static final long MARGIN_MS = 3_600_000;

    private final KafkaProducer<byte[], byte[]> producer;
    private final EventDecoder decoder = new EventDecoder();
    private final AtomicReference<Exception> failure = new AtomicReference<>();
    private long latest;

    private LoadLogs(String brokers) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        settings.put("compression.type", "lz4");
        settings.put("linger.ms", 50);
        settings.put("batch.size", 256 << 10);
        producer = new KafkaProducer<>(settings);
    }

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        Topics topics = new Topics(options.text("topics"));
        List<List<Path>> files = new ArrayList<>();
        List<NewTopic> wanted = new ArrayList<>();
        for (String topic : topics.all()) {
            files.add(logs(Path.of(options.text("logs"), topic)));
            wanted.add(new NewTopic(topic, files.get(files.size() - 1).size(), (short) 1).configs(
                    Map.of("retention.ms", "-1", "message.timestamp.after.max.ms",
                            String.valueOf(Long.MAX_VALUE))));
        }
        try (Admin admin = Admin.create(
                Map.<String, Object>of("bootstrap.servers", options.text("brokers")))) {
            admin.createTopics(wanted).all().get();
        }
        LoadLogs loader = new LoadLogs(options.text("brokers"));
        for (Event.Kind kind : Event.Kind.values()) {
            List<Path> partitions = files.get(kind.ordinal());
            for (int index = 0; index < partitions.size(); ++index) {
                loader.load(kind, topics.of(kind), index, partitions.get(index));
            }
        }
        loader.end(topics, files.get(0).size(), options.milliseconds("click-window-ms")
                + options.milliseconds("conversion-window-ms") + MARGIN_MS);
    }

    private static List<Path> logs(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(file -> file.toString().endsWith(".jsonl")).sorted().toList();
        }
    }

    private void load(Event.Kind kind, String topic, int partition, Path path) throws Exception {
        try (BufferedReader lines = Files.newBufferedReader(path)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                byte[] text = line.getBytes(StandardCharsets.UTF_8);
                Event event = decoder.decode(kind, text);
                latest = Math.max(latest, event.time);
                send(topic, partition, event.time,
                        event.impressionId.getBytes(StandardCharsets.UTF_8), text);
            }
        }
    }

    private void end(Topics topics, int partitions, long afterMs) throws Exception {
        for (String topic : topics.all()) {
            for (int partition = 0; partition < partitions; ++partition) {
                send(topic, partition, latest + afterMs, null, new byte[0]);
            }
        }
        producer.close();
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private void send(String topic, int partition, long time, byte[] key, byte[] value)
            throws Exception {
        producer.send(new ProducerRecord<>(topic, partition, time, key, value),
                (metadata, error) -> failure.compareAndSet(null, error));
        if (failure.get() != null) {
            throw failure.get();
        }
    }
}
