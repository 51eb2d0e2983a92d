package peers;

import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/** Counts the samples and drops them; its end of input is the end of the measurement. */
final class CountingSink implements Sink<Sample> {
    private static final class Writer implements SinkWriter<Sample> {
        private final Run run = Run.current();

        @Override
        public void write(Sample sample, Context context) {
            if (sample.second) {
                run.labels.secondSample(sample.payload.length, sample.converted);
            } else {
                run.labels.sample(sample.payload.length, sample.clicked, sample.converted);
            }
        }

        @Override
        public void flush(boolean endOfInput) {
            if (endOfInput) {
                run.stopwatch.stop();
            }
        }

        @Override
        public void close() {}
    }

    @Override
    public SinkWriter<Sample> createWriter(WriterInitContext context) {
        return new Writer();
    }

    @Override
    public SinkWriter<Sample> createWriter(InitContext context) {
        return new Writer();
    }
}
