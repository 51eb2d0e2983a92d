package peers;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceOutput;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.api.connector.source.SplitsAssignment;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.source.reader.RecordEmitter;
import org.apache.flink.connector.base.source.reader.SingleThreadMultiplexSourceReaderBase;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * The log files of all three topics as one source, as a KafkaSource subscribed to three topics
 * would be: a partition is a split, with a watermark and a position of its own in the checkpoints.
 * An event is (kind, time, impression id, payload): Flink's tuple serializer is the fastest of its
 * own.
 */
final class LogSource implements Source<Tuple4<Byte, Long, String, byte[]>, LogSplit, Boolean> {
    /** Partition p of topic k is paths[k][p], k as in Event.Kind. */
    private final String[][] paths;

    LogSource(String[][] paths) {
        this.paths = paths;
    }

    @Override
    public Boundedness getBoundedness() {
        return Boundedness.BOUNDED;
    }

    /** Gives every reader its partitions of all topics as soon as all readers are there. */
    private final class Enumerator implements SplitEnumerator<LogSplit, Boolean> {
        private final SplitEnumeratorContext<LogSplit> context;
        private boolean assigned;

        Enumerator(SplitEnumeratorContext<LogSplit> context, boolean assigned) {
            this.context = context;
            this.assigned = assigned;
        }

        @Override
        public void addReader(int reader) {
            int readers = context.currentParallelism();
            if (assigned || context.registeredReaders().size() < readers) {
                return;
            }
            Map<Integer, List<LogSplit>> splits = new HashMap<>();
            for (Event.Kind kind : Event.Kind.values()) {
                String[] ofKind = paths[kind.ordinal()];
                for (int index = 0; index < ofKind.length; ++index) {
                    splits.computeIfAbsent(index % readers, any -> new ArrayList<>())
                            .add(new LogSplit(kind, ofKind[index], 0));
                }
            }
            context.assignSplits(new SplitsAssignment<>(splits));
            for (int index = 0; index < readers; ++index) {
                context.signalNoMoreSplits(index);
            }
            assigned = true;
        }

        @Override
        public void addSplitsBack(List<LogSplit> splits, int reader) {
            for (LogSplit split : splits) {
                context.assignSplit(split, reader);
            }
        }

        @Override
        public Boolean snapshotState(long checkpoint) {
            return assigned;
        }

        @Override
        public void start() {}

        @Override
        public void handleSplitRequest(int reader, String host) {}

        @Override
        public void close() {}
    }

    @Override
    public SplitEnumerator<LogSplit, Boolean> createEnumerator(
            SplitEnumeratorContext<LogSplit> context) {
        return new Enumerator(context, false);
    }

    @Override
    public SplitEnumerator<LogSplit, Boolean> restoreEnumerator(
            SplitEnumeratorContext<LogSplit> context, Boolean assigned) {
        return new Enumerator(context, assigned);
    }

    @Override
    public SimpleVersionedSerializer<LogSplit> getSplitSerializer() {
        return new LogSplit.Serializer();
    }

    @Override
    public SimpleVersionedSerializer<Boolean> getEnumeratorCheckpointSerializer() {
        return new SimpleVersionedSerializer<>() {
            @Override
            public int getVersion() {
                return 1;
            }

            @Override
            public byte[] serialize(Boolean assigned) {
                return new byte[] {(byte) (assigned ? 1 : 0)};
            }

            @Override
            public Boolean deserialize(int version, byte[] serialized) {
                return serialized[0] == 1;
            }
        };
    }

    /** Decodes on the task's thread. */
    private static final class Emitter
            implements RecordEmitter<LogSplitReader.Line, Tuple4<Byte, Long, String, byte[]>,
                    LogSplit> {
        private final EventDecoder decoder = new EventDecoder();
        private final Labels labels = Run.current().labels;

        @Override
        public void emitRecord(LogSplitReader.Line line,
                SourceOutput<Tuple4<Byte, Long, String, byte[]>> output, LogSplit split)
                throws IOException {
            Event event = decoder.decode(split.kind, line.text());
            labels.events.increment();
            output.collect(Tuple4.of((byte) event.kind.ordinal(), event.time, event.impressionId,
                    event.payload), event.time);
            split.position = line.next();
        }
    }

    @Override
    public SourceReader<Tuple4<Byte, Long, String, byte[]>, LogSplit> createReader(
            SourceReaderContext context) {
        return new SingleThreadMultiplexSourceReaderBase<LogSplitReader.Line,
                Tuple4<Byte, Long, String, byte[]>, LogSplit, LogSplit>(
                LogSplitReader::new, new Emitter(), new Configuration(), context) {
            @Override
            protected void onSplitFinished(Map<String, LogSplit> finished) {}

            @Override
            protected LogSplit initializedState(LogSplit split) {
                return split;
            }

            @Override
            protected LogSplit toSplitType(String id, LogSplit state) {
                return new LogSplit(state.kind, state.path, state.position);
            }
        };
    }
}
