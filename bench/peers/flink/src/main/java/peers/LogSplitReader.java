package peers;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.Collection;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.connector.base.source.reader.RecordsBySplits;
import org.apache.flink.connector.base.source.reader.RecordsWithSplitIds;
import org.apache.flink.connector.base.source.reader.splitreader.SplitReader;
import org.apache.flink.connector.base.source.reader.splitreader.SplitsChange;

/**
 * Cuts files into lines, a few hundred of each at a time, on the fetcher's thread; they are
 * decoded on the task's. A split that watermark alignment has paused is passed over.
 */
final class LogSplitReader implements SplitReader<LogSplitReader.Line, LogSplit> {
    /** A record's text, and where the next one begins. */
    record Line(byte[] text, long next) {}

    private static final int LINES_A_FETCH = 500;
    private static final int BUFFER_BYTES = 1 << 18;
    private static final int PAUSE_MS = 1;

    private static final class OpenFile {
        final InputStream in;
        byte[] buffer = new byte[BUFFER_BYTES];
        int begin;
        int end;
        long position;
        boolean paused;

        OpenFile(LogSplit split) throws IOException {
            FileInputStream file = new FileInputStream(split.path);
            file.getChannel().position(split.position);
            in = file;
            position = split.position;
        }

        /** The next line, or null at the end of the file. */
        Line next() throws IOException {
            int scanned = begin;
            while (true) {
                for (; scanned < end; ++scanned) {
                    if (buffer[scanned] == '\n') {
                        byte[] text = Arrays.copyOfRange(buffer, begin, scanned);
                        position += scanned + 1 - begin;
                        begin = scanned + 1;
                        return new Line(text, position);
                    }
                }
                int kept = end - begin;
                if (kept == buffer.length) {
                    buffer = Arrays.copyOf(buffer, 2 * buffer.length);
                }
                System.arraycopy(buffer, begin, buffer, 0, kept);
                begin = 0;
                end = kept;
                scanned = kept;
                int got = in.read(buffer, end, buffer.length - end);
                if (got <= 0) {
                    return null;
                }
                end += got;
            }
        }
    }

    private final Map<String, OpenFile> files = new LinkedHashMap<>();

    @Override
    public RecordsWithSplitIds<Line> fetch() throws IOException {
        RecordsBySplits.Builder<Line> records = new RecordsBySplits.Builder<>();
        boolean waits = true;
        for (Iterator<Map.Entry<String, OpenFile>> each = files.entrySet().iterator();
                each.hasNext();) {
            Map.Entry<String, OpenFile> entry = each.next();
            OpenFile file = entry.getValue();
            if (file.paused) {
                continue;
            }
            waits = false;
            Run.current().stopwatch.start();
            for (int count = 0; count < LINES_A_FETCH; ++count) {
                Line line = file.next();
                if (line == null) {
                    records.addFinishedSplit(entry.getKey());
                    file.in.close();
                    each.remove();
                    break;
                }
                records.add(entry.getKey(), line);
            }
        }
        if (waits) {
            pause();
        }
        return records.build();
    }

    private static void pause() {
        try {
            Thread.sleep(PAUSE_MS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void handleSplitsChanges(SplitsChange<LogSplit> change) {
        for (LogSplit split : change.splits()) {
            try {
                files.put(split.splitId(), new OpenFile(split));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    @Override
    public void pauseOrResumeSplits(Collection<LogSplit> pause, Collection<LogSplit> resume) {
        setPaused(pause, true);
        setPaused(resume, false);
    }

    private void setPaused(Collection<LogSplit> splits, boolean paused) {
        for (LogSplit split : splits) {
            OpenFile file = files.get(split.splitId());
            if (file != null) {
                file.paused = paused;
            }
        }
    }

    /** fetch() never blocks for longer than a moment. */
    @Override
    public void wakeUp() {}

    @Override
    public void close() throws Exception {
        for (OpenFile file : files.values()) {
            file.in.close();
        }
    }
}
