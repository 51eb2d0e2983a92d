package peers;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The join of one partition. One store keeps what is open, under its impression id; the other has
 * an empty value under (time, impression id) for every time at which something is to be decided,
 * and is scanned in order as stream time goes on, each scan from where the last one ended: what
 * lies before are RocksDB's tombstones.
 *
 * <p>Kafka Streams hands a task the records of its partitions lowest timestamp first, so what it
 * has seen up to stream time minus the disorder of a log is complete.
 */
final class LabelProcessor implements Processor<byte[], byte[], Void, Void>, LabelRule.Actions {
    static final String OPEN = "open";
    static final String TIMES = "times";
    private static final byte[] PRESENT = {1};
    private static final Duration SCAN_EVERY = Duration.ofSeconds(1);

    /** What all processors of a run share. */
    record Shared(Topics topics, LabelRule rule, long outOfOrdernessMs, Labels labels,
            Stopwatch stopwatch, CountDownLatch unfinished) {}

    private final Shared shared;
    private final EventDecoder decoder = new EventDecoder();
    private ProcessorContext<Void, Void> context;
    private KeyValueStore<Bytes, byte[]> open;
    private KeyValueStore<Bytes, byte[]> times;
    private int ended;
    /** Everything up to this event time is decided, ms. */
    private long decidedUpTo;
    private byte[] currentId;
    private long openNow;
    private long mostOpen;

    LabelProcessor(Shared shared) {
        this.shared = shared;
    }

    @Override
    public void init(ProcessorContext<Void, Void> newContext) {
        context = newContext;
        open = context.getStateStore(OPEN);
        times = context.getStateStore(TIMES);
        context.schedule(SCAN_EVERY, PunctuationType.STREAM_TIME,
                streamTime -> decideUpTo(streamTime - shared.outOfOrdernessMs - 1));
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        shared.stopwatch.start();
        if (record.key() == null) {
            if (++ended == Event.Kind.values().length) {
                decideUpTo(context.currentStreamTimeMs());
                shared.labels.mostOpen.add(mostOpen);
                shared.stopwatch.stop();
                shared.unfinished.countDown();
            }
            return;
        }
        Event event = decode(record);
        shared.labels.events.increment();
        if (event.time <= decidedUpTo) {
            shared.labels.late.increment();
            return;
        }
        currentId = record.key();
        Bytes key = Bytes.wrap(currentId);
        byte[] encoded = open.get(key);
        OpenImpression impression =
                encoded == null ? new OpenImpression() : OpenImpression.decode(encoded);
        boolean wasSeen = impression.seen;
        shared.rule.onEvent(impression, event, this);
        if (impression.seen && !wasSeen) {
            mostOpen = Math.max(mostOpen, ++openNow);
        }
        open.put(key, impression.encode());
    }

    private Event decode(Record<byte[], byte[]> record) {
        String topic = context.recordMetadata().orElseThrow().topic();
        try {
            return decoder.decode(shared.topics.kindOf(topic), record.value());
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    private void decideUpTo(long time) {
        if (time <= decidedUpTo) {
            return;
        }
        try (KeyValueIterator<Bytes, byte[]> due =
                times.range(timeKey(decidedUpTo + 1), timeKey(time + 1))) {
            while (due.hasNext()) {
                KeyValue<Bytes, byte[]> entry = due.next();
                decide(entry.key);
            }
        }
        decidedUpTo = time;
    }

    private void decide(Bytes timeAndId) {
        long time = ByteBuffer.wrap(timeAndId.get()).getLong();
        currentId = Arrays.copyOfRange(timeAndId.get(), Long.BYTES, timeAndId.get().length);
        Bytes key = Bytes.wrap(currentId);
        times.put(timeAndId, null);  // delete() would read the old value first
        byte[] encoded = open.get(key);
        if (encoded == null) {
            return;
        }
        OpenImpression impression = OpenImpression.decode(encoded);
        if (shared.rule.onTime(impression, time, this)) {
            open.put(key, null);
            openNow -= impression.seen ? 1 : 0;
        } else {
            open.put(key, impression.encode());
        }
    }

    @Override
    public void callAt(long time) {
        byte[] key = Arrays.copyOf(timeKey(time).get(), Long.BYTES + currentId.length);
        System.arraycopy(currentId, 0, key, Long.BYTES, currentId.length);
        times.put(Bytes.wrap(key), PRESENT);
    }

    private static Bytes timeKey(long time) {
        return Bytes.wrap(ByteBuffer.allocate(Long.BYTES).putLong(time).array());
    }

    @Override
    public void sample(OpenImpression impression, boolean clicked, boolean converted) {
        shared.labels.sample(impression.payload.length, clicked, converted);
    }

    @Override
    public void secondSample(OpenImpression impression, boolean converted) {
        shared.labels.secondSample(impression.payload.length, converted);
    }

    @Override
    public void discard() {
        shared.labels.discarded.increment();
    }
}
